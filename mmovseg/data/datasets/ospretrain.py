"""OSPretrain-1M and folders laid out like it: pairs by source, and unpaired optical and SAR images.

    <root>/<Source>/RGB/<name>.png   <root>/<Source>/SAR/<name>.png     pairs: equal names, equal pixel size
    <root>/<Source>/{train,val,test}.txt                                optional: one name a line, suffix optional
    <root>/Unpaired/RGB/*   <root>/Unpaired/SAR/*                       source ``Unpaired``
    <root>/Unpaired/RGB/<Source>/*   <root>/Unpaired/SAR/<Source>/*     sources of their own, of one modality each

Any folder of the first kind is a source by its name; adding one adds it to the data. Layout, exclusions and the names
of the sources are those of the CoDe-MAE release, folders below ``Unpaired`` are an addition: there all unpaired images
share one row of statistics, although the paper normalises each data set by its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from mmovseg.data.datasets.catalog import datasets_root
from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.data.text import read_text
from mmovseg.errors import UserError

OSPretrainPart = Literal["paired", "unpaired_optical", "unpaired_sar"]
FOLDER = "OSPretrain-1M"
UNPAIRED = "Unpaired"
LISTS = ("train", "val", "test")
EXCLUDED = ("PIE-RGB-SAR", "YESeg-OPT-SAR", "SS4EO-S12")
"""Sources that pretraining leaves out by default, as the release does."""
EXCLUDED_LISTS: dict[str, tuple[str, ...]] = {
    name: ("test",) for name in ("WHU-OPT-SAR", "OGSOD-2", "DDHR", "DFC23_Track1")
}
"""Lists that pretraining leaves out by default, as the release does."""

_LOGGER = logging.getLogger(__name__)
_MODALITY_FOLDERS = {"file_name": "RGB", "sar_file_name": "SAR"}
_KEY_OF_PART = {"unpaired_optical": "file_name", "unpaired_sar": "sar_file_name"}


def load_ospretrain(
    root: str | Path | None = None,
    *,
    part: OSPretrainPart = "paired",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = EXCLUDED,
    exclude_lists: Mapping[str, Sequence[str]] | None = EXCLUDED_LISTS,
) -> list[dict[str, Any]]:
    """List one part of a tree; sizes are not read here.

    Args:
        root: the tree; None = ``OSPretrain-1M`` below the folder of the data sets.
        part: pairs, or unpaired images of one modality.
        include: names of the sources to take, these also if they are in `exclude`; None = all but `exclude`.
        exclude: names of sources to leave out; None = none.
        exclude_lists: source -> which of its lists ``train``, ``val``, ``test`` to leave out. A name that stands in
            such a list is left out even if another list has it too. None = none. Without any list file all pairs are
            taken, with a warning if a list was to be left out.

    Returns:
        Dataset dicts with `source` and an `image_id` of ``<source>/<name>``, sorted by source and name; pairs have
        `file_name` and `sar_file_name`, unpaired images one of them.

    Raises:
        UserError: the tree is missing, no source is left, a name is unknown, a folder or partner is missing, two files
            share a name, or a list is empty or names what is not there.
    """
    base = ospretrain_root(root)
    if part not in get_args(OSPretrainPart):
        raise UserError(f"OSPretrain has no part '{part}'; known: {', '.join(get_args(OSPretrainPart))}")
    exclude, exclude_lists = exclude or (), exclude_lists or {}
    known = source_names(base)
    _check_names(base, known, include, exclude, exclude_lists)
    sources = [name for name in known[part] if (name not in exclude if include is None else name in include)]
    if not sources:
        found = ", ".join(known[part]) or "none"
        raise UserError(f"no {_WORDS[part]} of '{base}' is in use; it has: {found}")
    dicts = []
    for name in sources:
        if part == "paired":
            dicts += _pairs(base / name, name, exclude_lists.get(name, ()))
        else:
            dicts += _images(unpaired_folder(base, part, name), name, _KEY_OF_PART[part])
    return dicts


def ospretrain_root(root: str | Path | None) -> Path:
    """Return the folder of a tree.

    Raises:
        UserError: it is not there.
    """
    base = datasets_root() / FOLDER if root is None else Path(root).expanduser()
    if not base.is_dir():
        raise UserError(f"pretraining data '{base}' do not exist; datasets/README.md says how they have to lie")
    return base


def source_names(base: Path) -> dict[OSPretrainPart, list[str]]:
    """Return the names of the sources of each part, sorted; folders with neither ``RGB`` nor ``SAR`` are none.

    Raises:
        UserError: a folder has only one of them.
    """
    names: dict[OSPretrainPart, list[str]] = {part: [] for part in get_args(OSPretrainPart)}
    for folder in sorted(entry for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        there = [modality for modality in ("RGB", "SAR") if (folder / modality).is_dir()]
        if folder.name == UNPAIRED:
            names["unpaired_optical"] = _unpaired_sources(folder / "RGB")
            names["unpaired_sar"] = _unpaired_sources(folder / "SAR")
        elif len(there) == 2:
            names["paired"].append(folder.name)
        elif there:
            raise UserError(
                f"source '{folder}' has a folder {there[0]} alone; images without partners belong into "
                f"'{base / UNPAIRED / there[0] / folder.name}'"
            )
        else:
            _LOGGER.info("'%s' has neither RGB nor SAR and is no source", folder)
    return names


def unpaired_folder(base: Path, part: str, name: str) -> Path:
    """Return where the unpaired images of a source lie."""
    folder = base / UNPAIRED / _MODALITY_FOLDERS[_KEY_OF_PART[part]]
    return folder if name == UNPAIRED else folder / name


def read_lists(folder: Path) -> dict[str, list[str]]:
    """Return the names of each list that a source has, without suffix, in their order.

    Raises:
        UserError: a list is empty or cannot be read.
    """
    lists = {}
    for name in LISTS:
        path = folder / f"{name}.txt"
        if not path.is_file():
            continue
        lines = [line.strip() for line in read_text(path, "list").splitlines()]
        lists[name] = [_without_suffix(line) for line in lines if line]
        if not lists[name]:
            raise UserError(f"list '{path}' is empty; remove it or fill it")
    return lists


def list_rasters(folder: Path, *, nested: bool = True) -> dict[str, Path]:
    """Return the rasters below a folder by their name relative to it, without suffix, sorted.

    Args:
        folder: where to look.
        nested: look in its folders as well.

    Raises:
        UserError: two files differ in their suffix alone.
    """
    files: dict[str, Path] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if nested and not name.startswith("."))
        for name in names:
            if not _is_raster(name):
                continue
            path = Path(place, name)
            key = _without_suffix(path.relative_to(folder).as_posix())
            if key in files:
                raise UserError(f"folder '{folder}' has two rasters named '{key}': {files[key].name}, {name}")
            files[key] = path
    return dict(sorted(files.items()))


def chosen_names(folder: Path, left_out: Sequence[str]) -> list[str] | None:
    """Return the names of a source that its lists choose, None where it has no list.

    Raises:
        UserError: a list is empty, or none is left.
    """
    lists = read_lists(folder)
    if not lists:
        if left_out:
            _LOGGER.warning("'%s' has no list files: all is taken, also what %s would leave out", folder, left_out)
        return None
    kept = [name for key, names in lists.items() if key not in left_out for name in names]
    dropped = {name for key, names in lists.items() if key in left_out for name in names}
    both = sorted(dropped.intersection(kept))
    if both:
        _LOGGER.warning("'%s': %d names of lists in use are also in one left out and stay out", folder, len(both))
    chosen = [name for name in dict.fromkeys(kept) if name not in dropped]
    if not chosen:
        raise UserError(f"source '{folder}' has no name left: its lists {', '.join(lists)} are left out")
    return chosen


_WORDS: dict[str, str] = {
    "paired": "paired source",
    "unpaired_optical": "unpaired optical source",
    "unpaired_sar": "unpaired SAR source",
}


def _pairs(folder: Path, source: str, left_out: Sequence[str]) -> list[dict[str, Any]]:
    files = {key: list_rasters(folder / name) for key, name in _MODALITY_FOLDERS.items()}
    names = chosen_names(folder, left_out)
    wanted = sorted(names if names is not None else set().union(*files.values()))
    if not wanted:
        raise UserError(f"source '{folder}' has no raster ({' '.join(RASTER_SUFFIXES)})")
    for key, found in files.items():
        missing = [name for name in wanted if name not in found]
        if missing:
            raise UserError(
                f"source '{source}' has no raster '{missing[0]}' in '{folder / _MODALITY_FOLDERS[key]}' "
                f"({len(missing)} of {len(wanted)} are missing there)"
            )
    return [
        {key: str(found[name]) for key, found in files.items()} | {"image_id": f"{source}/{name}", "source": source}
        for name in wanted
    ]


def _images(folder: Path, source: str, key: str) -> list[dict[str, Any]]:
    files = list_rasters(folder, nested=source != UNPAIRED)
    return [{key: str(path), "image_id": f"{source}/{name}", "source": source} for name, path in files.items()]


def _unpaired_sources(folder: Path) -> list[str]:
    """Return the sources of one modality: the folder itself if rasters lie in it, and its folders."""
    if not folder.is_dir():
        return []
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    empty = [entry for entry in inner if not _has_raster(entry)]
    if empty:
        raise UserError(f"unpaired source '{empty[0]}' has no raster ({' '.join(RASTER_SUFFIXES)})")
    return [UNPAIRED] * _has_raster(folder, nested=False) + [entry.name for entry in inner]


def _has_raster(folder: Path, *, nested: bool = True) -> bool:
    for _, folders, names in os.walk(folder):
        if any(_is_raster(name) for name in names):
            return True
        if not nested:
            folders.clear()
    return False


def _is_raster(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in RASTER_SUFFIXES


def _check_names(
    base: Path,
    known: Mapping[OSPretrainPart, Sequence[str]],
    include: Sequence[str] | None,
    exclude: Sequence[str],
    exclude_lists: Mapping[str, Sequence[str]],
) -> None:
    everything = sorted({name for names in known.values() for name in names})
    # What is left out by default need not be there. Of other names a mistyped one would leave test images in.
    asked = {
        "include": include or (),
        "exclude": set(exclude).difference(EXCLUDED),
        "exclude_lists": set(exclude_lists).difference(EXCLUDED_LISTS),
    }
    for option, names in asked.items():
        for name in sorted(names):
            if name not in everything:
                has = ", ".join(everything) or "none"
                raise UserError(f"'{base}' has no source '{name}', which {option} names; it has: {has}")
    for name, lists in exclude_lists.items():
        for wrong in (key for key in lists if key not in LISTS):
            raise UserError(f"exclude_lists of '{name}' has '{wrong}'; lists are {', '.join(LISTS)}")


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in RASTER_SUFFIXES else name
