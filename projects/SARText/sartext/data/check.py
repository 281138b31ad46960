"""Look for faults in a prepared set of images and text: its files as for any data set, then its captions or boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.datasets.catalog import datasets_root
from mmovseg.data.datasets.check import CheckReport, Fault, inspect_dataset
from mmovseg.data.sample import DatasetDict
from mmovseg.errors import UserError
from mmovseg.projects.sartext.data.sets import TextSet, load_text_set, source_scene


def inspect_text_set(
    known: TextSet,
    *,
    splits: Sequence[str] | None = None,
    root: str | Path | None = None,
    fast: bool = False,
    use_manifest: bool = True,
    workers: int = 1,
    show_progress: bool = False,
) -> CheckReport:
    """Check a set of images and text; options as for `mmovseg.data.datasets.check.inspect_dataset`.

    Without `splits`, those are checked that are published or have a folder. Captions and boxes are read as a training
    reads them; a note says how many images have none, and how many source scenes are in two splits.

    Raises:
        UserError: there is no such split, or the data set is not there at all.
    """
    base = datasets_root() if root is None else Path(root)
    there = [split for split in known.splits if (base / known.name / split).is_dir()]
    chosen = list(splits) if splits else [s for s in known.splits if s not in known.own_splits or s in there]
    report = inspect_dataset(
        known.entry,
        splits=chosen or known.splits,
        root=base,
        fast=fast,
        use_manifest=use_manifest,
        workers=workers,
        show_progress=show_progress,
    )
    scenes: dict[str, set[str]] = {}
    for split in (split for split in chosen if split in there):
        items = _load(known, split, base, report)
        if known.kind != "pairs" and items:
            _note_silent_images(known, split, items, report)
        scenes[split] = {source_scene(known.name, _image(item)) for item in items if _knows_scene(known.name, item)}
    _note_shared_scenes(known, scenes, report)
    return report


def _load(known: TextSet, split: str, base: Path, report: CheckReport) -> list[DatasetDict]:
    """Return the images of a split as a training gets them; what stops it is a fault."""
    path = known.text_file(base, split)
    try:
        return load_text_set(known.name, split, root=base)
    except UserError as error:
        if path is not None:  # of pairs, missing partners are faults already
            report.faults.append(Fault("wrong_texts", str(path), str(error)))
        return []


def _image(item: DatasetDict) -> str:
    return item.get("sar_file_name") or item.get("file_name", "")


def _knows_scene(name: str, item: DatasetDict) -> bool:
    return source_scene(name, _image(item)) != Path(_image(item)).stem


def _note_silent_images(known: TextSet, split: str, items: Sequence[DatasetDict], report: CheckReport) -> None:
    what = "captions" if known.kind == "captions" else "boxes"
    silent = report.pairs.get(split, 0) - len(items)
    if silent > 0:
        report.notes.append(f"split '{split}' of '{known.name}': {silent} images are not named by its {what}")


def _note_shared_scenes(known: TextSet, scenes: dict[str, set[str]], report: CheckReport) -> None:
    splits = list(scenes)
    for number, one in enumerate(splits):
        for other in splits[number + 1 :]:
            shared = scenes[one] & scenes[other]
            if shared:
                report.notes.append(
                    f"{len(shared)} source scenes of '{known.name}' are in '{one}' and in '{other}': images of one "
                    "scene resemble each other"
                )
