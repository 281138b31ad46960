"""Images with one label each: from class folders, from the split files of public data sets, and from list layouts.

Every loader returns dataset dicts with `label` (position in the class list) and ids that are unique over all parts.
Folders that are not absolute lie under `DETECTRON2_DATASETS` (default ``datasets``), or under the `root` that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np

from mmovseg.data.datasets.catalog import datasets_root
from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.data.sample import DatasetDict
from mmovseg.data.text import read_text
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.copies import copy_groups, without_torn_groups

Sensor = Literal["optical", "sar"]
Part = Literal["all", "train", "test"]
PairLabels = Literal["raster", "vector", "prefix"]

_KEYS: dict[str, str] = {"optical": "file_name", "sar": "sar_file_name"}
_PAIR_LABELS: tuple[PairLabels, ...] = get_args(PairLabels)


def class_names(*, folder: str, root: str | None = None, exclude: Sequence[str] = ()) -> list[str]:
    """Return the classes of a data set with one folder a class: the sorted names of the folders.

    Args:
        folder: of the data set, or of one of its parts.
        root: what `folder` lies under.
        exclude: folders that are no class.

    Raises:
        UserError: the folder does not exist or has no folder in it.
    """
    place = find_folder(folder, root)
    names = sorted(item.name for item in place.iterdir() if item.is_dir() and not item.name.startswith("."))
    names = [name for name in names if name not in exclude]
    if not names:
        raise UserError(f"folder '{place}' holds no folder of a class")
    return names


def find_folder(folder: str | Path, root: str | None = None) -> Path:
    """Return where a data set lies.

    Raises:
        UserError: nowhere.
    """
    place = (Path(root).expanduser() if root is not None else datasets_root()) / Path(folder).expanduser()
    if not place.is_dir():
        raise UserError(
            f"folder '{place}' does not exist; name the folder of the data sets with the environment variable "
            "DETECTRON2_DATASETS"
        )
    return place


def load_class_folder(
    *,
    folder: str,
    classes: Sequence[str],
    sensor: Sensor = "optical",
    root: str | None = None,
    part: Part = "all",
    test_share: float = 0.5,
    split_seed: int = 0,
    copies_above: float | None = None,
) -> list[DatasetDict]:
    """List the images below ``<folder>/<class>/``, in folders of any depth.

    Data sets that come without a split get a seeded one: of every class `test_share` of the images are ``test`` and the
    others ``train``. It depends on the names of the files and on `split_seed` alone; with `copies_above` also on what
    the images show, so that no image is tested on whose copy was learned from.

    Args:
        folder: holds one folder a class.
        classes: names of the folders; position = label.
        sensor: what the images are.
        root: what `folder` lies under.
        part: ``all`` images, or one part of the seeded split.
        test_share: above 0 and below 1; every class keeps at least one image on both sides.
        split_seed: of the split.
        copies_above: images of a class that correlate by more than this stay on one side of the split, see
            `copy_groups`; None = each image is by itself. The test part has as many images as fit then, at most
            `test_share`.

    Returns:
        Dataset dicts by class and path.

    Raises:
        UserError: a folder is missing or empty, a class has a single image to split, or an argument is out of range.
    """
    if copies_above is not None and not 0 < copies_above < 1:
        raise UserError(f"copies_above is a correlation between 0 and 1, got {copies_above}")
    _check_sensor(sensor)
    if part not in get_args(Part):
        raise UserError(f"unknown part '{part}'; known: {', '.join(get_args(Part))}")
    if not 0 < test_share < 1:
        raise UserError(f"test_share must lie between 0 and 1, got {test_share}")
    place = find_folder(folder, root)
    dicts: list[DatasetDict] = []
    for label, name in enumerate(classes):
        files = _images_below(place / name)
        if part != "all":
            rng = np.random.default_rng([split_seed, label])
            files = _split(files, place / name, part, test_share, copies_above, rng)
        dicts += [_image(file, place, label, sensor) for file in files]
    return dicts


def load_class_list(
    *, list_file: str, folder: str, classes: Sequence[str], sensor: Sensor = "optical", root: str | None = None
) -> list[DatasetDict]:
    """List the images that a split file names, one a line, in any of the ways that public splits use.

    A line is a path, a path and a number, or a file name, its folder and a number. Paths may be absolute on another
    machine and may have backslashes: what counts is the part from the folder of the class on. Numbers are not read, the
    folder says the class.

    Args:
        list_file: text file; a relative path starts at the data set's folder.
        folder: holds one folder a class.
        classes: names of the folders; position = label.
        sensor: what the images are.
        root: what `folder` lies under.

    Returns:
        Dataset dicts in the order of the lines.

    Raises:
        UserError: a file does not exist, the list is empty, or a line names no known class.
    """
    _check_sensor(sensor)
    place = find_folder(folder, root)
    path = place / list_file
    lines = [line.strip() for line in read_text(path, "list").splitlines() if line.strip()]
    if not lines:
        raise UserError(f"list '{path}' names no image")
    dicts = []
    for number, line in enumerate(lines, start=1):
        parts = _path_of(line).parts
        at = max((index for index, part in enumerate(parts[:-1]) if part in classes), default=None)
        if at is None:
            raise UserError(f"list '{path}' line {number} names no folder of a known class: {line[:80]}")
        file = place.joinpath(*parts[at:])
        if not file.is_file():
            raise UserError(f"list '{path}' line {number} names '{file}', which does not exist")
        dicts.append(_image(file, place, list(classes).index(parts[at]), sensor))
    return dicts


def load_listed_pairs(
    *,
    folder: str,
    split: str,
    labels: PairLabels,
    classes: Sequence[str] = (),
    suffix: str = ".png",
    root: str | None = None,
) -> list[DatasetDict]:
    """List the pairs of a data set with the layout ``{train,val,test}.txt``, ``RGB/``, ``SAR/`` and ``Label/``.

    Source: the layout of the release's linear probe, one name a line.

    Args:
        folder: of the data set.
        split: name of the list without ``.txt``.
        labels: ``raster``: ``Label/<name>.png``; ``vector``: ``Label/<name>.npy`` with one 0 or 1 a class; ``prefix``:
            the file name starts with the name of the class, followed by an underscore.
        classes: needed for ``prefix``; position = label.
        suffix: of the files in RGB and SAR.
        root: what `folder` lies under.

    Returns:
        Dataset dicts in the order of the list.

    Raises:
        UserError: unknown kind of labels, a missing list or file, or a name without a known class.
    """
    if labels not in _PAIR_LABELS:
        raise UserError(f"unknown kind of labels '{labels}'; known: {', '.join(_PAIR_LABELS)}")
    place = find_folder(folder, root)
    path = place / f"{split}.txt"
    names = [line.strip() for line in read_text(path, "list").splitlines() if line.strip()]
    dicts: list[DatasetDict] = []
    for name in names:
        stem = name.removesuffix(suffix)
        item: DatasetDict = {
            "image_id": f"{place.name}/{split}/{stem}",
            "file_name": _existing(place / "RGB" / f"{stem}{suffix}", path),
            "sar_file_name": _existing(place / "SAR" / f"{stem}{suffix}", path),
        }
        if labels == "raster":
            item["sem_seg_file_name"] = _existing(place / "Label" / f"{stem}.png", path)
        elif labels == "vector":
            item["label_file_name"] = _existing(place / "Label" / f"{stem}.npy", path)
        else:
            item["label"] = _label_of_prefix(stem, classes, path)
        dicts.append(item)
    if not dicts:
        raise UserError(f"list '{path}' names no pair")
    return dicts


def _image(file: Path, place: Path, label: int, sensor: Sensor) -> DatasetDict:
    item: dict[str, Any] = {_KEYS[sensor]: str(file), "label": label}
    item["image_id"] = f"{place.name}/{file.relative_to(place).as_posix()}"
    return item  # type: ignore[return-value]


def _images_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"folder '{folder}' does not exist, although the list of classes names it")
    files = [item for item in folder.rglob("*") if item.suffix.lower() in RASTER_SUFFIXES and item.is_file()]
    files = sorted(item for item in files if not item.name.startswith("."))
    if not files:
        raise UserError(f"folder '{folder}' has no image ({' '.join(RASTER_SUFFIXES)})")
    return files


def _split(
    files: list[Path],
    folder: Path,
    part: Part,
    test_share: float,
    copies_above: float | None,
    rng: np.random.Generator,
) -> list[Path]:
    if len(files) < 2:
        raise UserError(f"folder '{folder}' has a single image, which cannot be split into train and test")
    count = min(max(round(len(files) * test_share), 1), len(files) - 1)
    if copies_above is None:
        tested = set(rng.permutation(len(files))[:count].tolist())
    else:
        tested = without_torn_groups(copy_groups(tuple(files), copies_above), count, rng)
        if not tested:
            raise UserError(
                f"folder '{folder}' has {len(files)} images, but too many are copies of one another (copies_above="
                f"{copies_above}) to test on {test_share:.0%} of them"
            )
    return [file for index, file in enumerate(files) if (index in tested) == (part == "test")]


def _path_of(line: str) -> PurePosixPath:
    """Return the path that a line names; see `load_class_list`."""
    whole = PurePosixPath(line.replace("\\", "/"))
    if whole.suffix.lower() in RASTER_SUFFIXES:
        return whole
    words = line.replace("\\", "/").split()
    if len(words) >= 3:
        return PurePosixPath(words[-2], words[0])
    return PurePosixPath(words[0])


def _existing(file: Path, source: Path) -> str:
    if not file.is_file():
        raise UserError(f"list '{source}' needs '{file}', which does not exist")
    return str(file)


def _label_of_prefix(stem: str, classes: Sequence[str], source: Path) -> int:
    prefix = stem.rsplit("_", 1)[0]
    if prefix not in classes:
        raise UserError(f"list '{source}' names '{stem}', whose class is none of: {', '.join(classes) or 'none given'}")
    return list(classes).index(prefix)


def _check_sensor(sensor: str) -> None:
    if sensor not in _KEYS:
        raise UserError(f"unknown sensor '{sensor}'; known: {', '.join(_KEYS)}")
