"""Which files of boxes captions are made from, and which of them say what is small and what large.

Size words are relative to a data set, and a model is tested on words that it learnt: the limits come from the training
images wherever there are any, whichever splits are captioned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmovseg.errors import UserError

Part = dict[str, Any]
"""Keyword arguments of `sources.read_coco_images` for one split."""

_TRAIN = "train"


def split_pair(text: str) -> tuple[str, str]:
    """Return name and path of ``NAME=FILE``.

    Raises:
        UserError: it is not of this form.
    """
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise UserError(f"'{text}' is not of the form NAME=FILE")
    return name, path


def prepared_parts(
    name: str,
    *,
    splits: Sequence[str] | None = None,
    root: str | Path | None = None,
    source: str | None = None,
    gsd_m: float | None = None,
    sizes_from: str | None = None,
) -> tuple[list[Part], list[Part]]:
    """Return the parts of a prepared set to caption, and those that size words follow from.

    Image paths start from the folder of all sets, so that records of several sets go into one training.

    Args:
        name: a set of boxes of `mmovseg.projects.sartext.data.sets.TEXT_SETS`.
        splits: of it; None = all that are there.
        root: folder of all data sets; None = the registered one.
        source: what records call the set; None = `name`.
        gsd_m: metres per pixel; None = as published.
        sizes_from: split, or SPLIT=JSON; None = the training split. Without one, all that are captioned.

    Raises:
        UserError: there is no such set, it has no boxes, or a split is not there.
    """
    from mmovseg.data.datasets.catalog import datasets_root  # imports detectron2: seconds
    from mmovseg.projects.sartext.data.sets import find_text_set

    known = find_text_set(name)
    if known.kind != "boxes":
        raise UserError(f"--dataset {name} is a set of {known.kind}, it has no boxes")
    base = datasets_root() if root is None else Path(root)
    there = [split for split in known.splits if (base / known.name / f"{split}.json").is_file()]
    if not there:
        raise UserError(f"'{base / known.name}' has no split of {known.name}; make it with {known.prepare}")

    def part(split: str, json_file: str | Path | None = None) -> Part:
        file = base / known.name / f"{split}.json" if json_file is None else json_file
        folder = f"{known.name}/{split}/sar"
        return _part(base, source or known.name, gsd_m or known.gsd_m, split, file, folder)

    if sizes_from is None:
        sizing = [part(_TRAIN)] if _TRAIN in there else []
    elif "=" in sizes_from:
        sizing = [part(*split_pair(sizes_from))]
    else:
        sizing = [part(sizes_from)]
    return [part(split) for split in splits or there], sizing


def coco_parts(
    files: Sequence[str],
    *,
    root: str | Path,
    images: str,
    source: str,
    gsd_m: float | None = None,
    sizes_from: str | None = None,
) -> tuple[list[Part], list[Part]]:
    """Return the parts of COCO files to caption, and those that size words follow from.

    Args:
        files: SPLIT=JSON.
        root: of the data; image paths start there.
        images: folder of the images below `root`, with ``{split}`` for the split.
        source: data set.
        gsd_m: metres per pixel, None where it is not known.
        sizes_from: one of the splits, or SPLIT=JSON of another; None = the files of the split ``train``. Without one,
            all that are captioned.

    Raises:
        UserError: a file is not given as SPLIT=JSON, or `sizes_from` is no split of theirs.
    """

    def part(split: str, file: str) -> Part:
        return _part(root, source, gsd_m, split, file, images.replace("{split}", split))

    parts = [part(*split_pair(text)) for text in files]
    if sizes_from is not None and "=" in sizes_from:
        return parts, [part(*split_pair(sizes_from))]
    sizing = [one for one in parts if one["split"] == (sizes_from or _TRAIN)]
    if sizes_from is not None and not sizing:
        known = ", ".join(dict.fromkeys(one["split"] for one in parts))
        raise UserError(
            f"--sizes-from '{sizes_from}' is no split of --coco, which has: {known}; SPLIT=JSON takes another file"
        )
    return parts, sizing


def _part(root: str | Path, source: str, gsd_m: float | None, split: str, json_file: str | Path, folder: str) -> Part:
    return {
        "root": root,
        "source": source,
        "gsd_m": gsd_m,
        "split": split,
        "json_file": json_file,
        "folder": folder,
    }
