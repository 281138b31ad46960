"""What CoDe-MAE is pretrained on: MiniEarth, or folders laid out as OSPretrain-1M, with either part or both in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.data.datasets.ospretrain import EXCLUDED, EXCLUDED_LISTS, load_ospretrain
from mmovseg.data.miniearth import load_miniearth
from mmovseg.data.miniearth.chips import load_miniearth_targets
from mmovseg.data.miniearth.domain import Domain
from mmovseg.data.statistics import read_statistics
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.pretraining import (
    PretrainingDataset,
    Unequal,
    Use,
    check_use,
    pretraining_dataset,
)


def miniearth_pretraining(
    *,
    use: Use = "both",
    num_pairs: int = 1500,
    num_chips: int = 750,
    split: str = "train",
    size: int = 64,
    domain: str | Domain | dict[str, Any] = "default",
    seed: int = 0,
) -> PretrainingDataset:
    """Return scenes of MiniEarth as pairs, of source ``scenes``, and chips with targets as unpaired images, ``chips``.

    Optical and SAR chips show different ground (`mmovseg.data.miniearth.chips`). What is not in use is not looked for.

    Args:
        use: ``paired``, ``unpaired`` or ``both``.
        num_pairs: scenes.
        num_chips: optical chips, and as many SAR chips.
        split: of both.
        size: side of scenes and chips, pixels.
        domain: name, `Domain` or its dict.
        seed: which world.

    Raises:
        UserError: an argument is not valid, or the area holds too few scenes or targets.
    """
    world: dict[str, Any] = dict(size=size, domain=domain, seed=seed)
    parts: dict[str, list[dict[str, Any]]] = {}
    if check_use(use) != "unpaired":
        scenes = load_miniearth(split, num_scenes=num_pairs, **world)
        parts["paired"] = [{**scene, "source": "scenes"} for scene in scenes]
    if use != "paired":
        for sensor in ("optical", "sar"):
            chips = load_miniearth_targets(split, sensor=sensor, num=num_chips, source="chips", **world)
            parts[f"unpaired_{sensor}"] = [dict(chip) for chip in chips]
    return pretraining_dataset(**parts)


def ospretrain_pretraining(
    *,
    root: str | Path | None = None,
    use: Use = "both",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = EXCLUDED,
    exclude_lists: Mapping[str, Sequence[str]] | None = EXCLUDED_LISTS,
    unequal: Unequal = "refuse",
    statistics: str | None = None,
) -> PretrainingDataset:
    """Return the pairs and unpaired images of a tree laid out as OSPretrain-1M (`mmovseg.data.datasets.ospretrain`).

    Args:
        root: the tree; None = ``OSPretrain-1M`` below the folder of the data sets.
        use: ``paired``, ``unpaired`` or ``both``; what is not in use is not looked for.
        include: see `load_ospretrain`.
        exclude: see `load_ospretrain`.
        exclude_lists: see `load_ospretrain`.
        unequal: see `pretraining_dataset`.
        statistics: file or shipped name; every source must have its figures there. None = not checked.

    Raises:
        UserError: the tree or a source is not as it should be, or a source has no statistics.
    """
    options: dict[str, Any] = dict(include=include, exclude=exclude, exclude_lists=exclude_lists)
    parts: dict[str, list[dict[str, Any]]] = {}
    if check_use(use) != "unpaired":
        parts["paired"] = load_ospretrain(root, part="paired", **options)
    if use != "paired":
        parts["unpaired_optical"] = load_ospretrain(root, part="unpaired_optical", **options)
        parts["unpaired_sar"] = load_ospretrain(root, part="unpaired_sar", **options)
    if statistics is not None:
        _check_statistics(parts, statistics)
    return pretraining_dataset(**parts, unequal=unequal)


def _check_statistics(parts: Mapping[str, Sequence[dict[str, Any]]], statistics: str) -> None:
    """Refuse sources without figures now, and not when the first of their images comes up."""
    table = read_statistics(statistics)
    needs = {"paired": ("optical", "sar"), "unpaired_optical": ("optical",), "unpaired_sar": ("sar",)}
    for part, dicts in parts.items():
        for source in dict.fromkeys(item["source"] for item in dicts):
            for modality in needs[part]:
                if getattr(table.get(source), modality, None) is None:
                    raise UserError(
                        f"source '{source}' has no {modality} statistics in '{statistics}'; measure them: python "
                        "tools/compute_statistics.py --config-file projects/CoDeMAE/configs/common/data_ospretrain.py "
                        f"--base {statistics} --output FILE.json dataloader.train.dataset.include=[{source}], then set "
                        "dataloader.train.dataset.statistics=FILE.json"
                    )
