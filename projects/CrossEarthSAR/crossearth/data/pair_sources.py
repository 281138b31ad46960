"""Where pairs that wait for labels come from: folders, a table, or MiniEarth, which is written out on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmovseg.data.datasets.folders import load_pair_csv, load_pair_folder, load_pair_jsonl
from mmovseg.data.miniearth import load_miniearth
from mmovseg.data.miniearth.export import write_scene
from mmovseg.data.miniearth.world import render
from mmovseg.data.sample import DatasetDict
from mmovseg.data.vocabulary import Vocabulary, get_vocabulary
from mmovseg.errors import UserError

_PATH_KEYS = ("file_name", "sar_file_name", "sem_seg_file_name")


@dataclass(frozen=True)
class PairSource:
    """Pairs to be labelled.

    dicts: dataset dicts of both rasters; labels, if any, are true ones and only compared with.
    facts: what decides which pairs these are, json-able, without paths.
    truth: the classes that true labels number.
    paths_of: the rasters of a dict when labels lie in this folder.
    files_of: the same, after the rasters were made if they are not there.
    """

    dicts: list[DatasetDict]
    facts: dict[str, Any]
    truth: Vocabulary | None = None
    paths_of: Callable[[DatasetDict, Path], dict[str, str]] = field(default=lambda item, _: _paths(item))
    files_of: Callable[[DatasetDict, Path], DatasetDict] = field(default=lambda item, _: item)

    def __post_init__(self) -> None:
        if not self.dicts:
            raise UserError("there is no pair to label")
        for item in self.dicts:
            name = str(item["image_id"])
            if "/" in name or "\\" in name or name.startswith("."):
                raise UserError(f"image_id '{name}' cannot be the name of a file; give the pairs plain ids")
            missing = [key for key in ("file_name", "sar_file_name") if key not in item]
            if missing:
                raise UserError(f"pair '{name}' has no {missing[0]}; labels are made for SAR from its optical twin")


def folder_pairs(
    optical_dir: str | Path,
    sar_dir: str | Path,
    truth_dir: str | Path | None = None,
    *,
    pattern: str = "*",
    truth: Vocabulary | None = None,
) -> PairSource:
    """Return the pairs of folders with equal file stems, see `load_pair_folder`.

    Raises:
        UserError: a folder or a partner is missing.
    """
    dicts: list[Any] = load_pair_folder(optical_dir, sar_dir, truth_dir, pattern=pattern)
    return PairSource(dicts, {"kind": "folders", "truth": truth_dir is not None}, truth)


def table_pairs(path: str | Path, *, truth: Vocabulary | None = None) -> PairSource:
    """Return the pairs of a table, ``.csv`` or ``.jsonl``, see `load_pair_csv` and `load_pair_jsonl`.

    Raises:
        UserError: the table is unusable or of another kind.
    """
    readers = {".csv": load_pair_csv, ".jsonl": load_pair_jsonl}
    kind = Path(path).suffix.lower()
    if kind not in readers:
        raise UserError(f"--pairs '{path}' must end in .csv or .jsonl")
    dicts: list[Any] = readers[kind](path)
    return PairSource(dicts, {"kind": "table", "truth": any("sem_seg_file_name" in item for item in dicts)}, truth)


def miniearth_pairs(
    split: str, *, num_scenes: int | None = None, size: int = 64, domain: str = "default", seed: int = 0
) -> PairSource:
    """Return scenes of MiniEarth, which are written below the folder of the labels; arguments as `load_miniearth`."""
    options: dict[str, Any] = {"num_scenes": num_scenes, "size": size, "domain": domain, "seed": seed}
    return PairSource(
        load_miniearth(split, **options),
        {"kind": "miniearth", "split": split, **options},
        get_vocabulary("miniearth"),
        paths_of=_world_paths,
        files_of=_write_world,
    )


def _paths(item: DatasetDict) -> dict[str, str]:
    return {key: item[key] for key in _PATH_KEYS if key in item}  # type: ignore[literal-required]


def _world_paths(item: DatasetDict, root: Path) -> dict[str, str]:
    folders = zip(_PATH_KEYS, ("optical", "sar", "truth"), strict=True)
    return {key: str(root / folder / f"{item['image_id']}.tif") for key, folder in folders}


def _write_world(item: DatasetDict, root: Path) -> DatasetDict:
    world, paths = item["world"], _world_paths(item, root)
    for path in paths.values():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    scene = render(world["domain"], world["row"], world["col"], item["height"], item["width"], seed=world["seed"])
    write_scene(scene, *(Path(path) for path in paths.values()))
    return {"image_id": item["image_id"], **paths}  # type: ignore[typeddict-item]
