"""Change data: pairs of two dates as dataset dicts, and what reads them.

A pair of two sensors has `file_name` (optical) and `sar_file_name`, whichever is earlier; the model says which. A pair
of one sensor has `sar_before_file_name` (or `before_file_name`) for the earlier date; `ChangeReader` then stacks both
in channels, the earlier first, so that geometry moves them as one. `window` cuts a part out of a scene.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from mmovseg.data.datasets.catalog import datasets_root
from mmovseg.data.readers import sar_unit_of
from mmovseg.data.sample import IGNORE_LABEL, DatasetDict, RawSample, Reader
from mmovseg.data.sar import SarUnit
from mmovseg.data.text import read_text
from mmovseg.errors import UserError

Jitter = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Axis = Literal["rows", "columns"]

_BRIGHT_FILES = {
    "file_name": "pre-event/{}_pre_disaster.tif",
    "sar_file_name": "post-event/{}_post_disaster.tif",
    "sem_seg_file_name": "target/{}_building_damage.tif",
}
_HETERO_FILES = {  # scene -> role -> file; the sensor of each date follows from the names
    "shuguang": {"sar_file_name": "t1_sar.png", "file_name": "t2_opt.png"},
    "yellow_river": {"sar_file_name": "t1_sar.png", "file_name": "t2_opt.png"},
    "yellow_B": {"sar_before_file_name": "t1_sar.png", "sar_file_name": "t2_sar.png"},
    "yellow_C": {"sar_before_file_name": "t1_sar.png", "sar_file_name": "t2_sar.png"},
}
# Besides 0 and 255 the map of yellow_C holds 34 in a corner, which nobody explains.
_HETERO_LABELS = {0: 0, 34: IGNORE_LABEL, 255: 1}


def load_bright(
    split: str, *, root: str | Path | None = None, folder: str = "BRIGHT", with_labels: bool = True
) -> list[dict[str, Any]]:
    """List the pairs of BRIGHT (DFC25 track 2): optical before and SAR after a disaster, 1024 px at 0.3 to 1 m.

    Layout: ``pre-event/<id>_pre_disaster.tif`` (RGB), ``post-event/<id>_post_disaster.tif`` (one band of 8-bit
    amplitude), ``target/<id>_building_damage.tif`` (0 background, 1 intact, 2 damaged, 3 destroyed), and lists of ids,
    one a line, for example ``train_set.txt``. An id is ``<disaster>_<number>``; the disaster comes out as `source`, by
    which norms can differ and evaluation groups.

    Source: Chen et al., "BRIGHT", Earth Syst. Sci. Data 17 (2025).

    Args:
        split: name of a list below the folder without ``_set.txt`` (``train``, ``val``, ``test``), or the path of one.
        root: folder of all data sets; None = `DETECTRON2_DATASETS`.
        folder: below the root.
        with_labels: False for a part without targets.

    Raises:
        UserError: the list is missing, empty or names an id twice, or a file of an id is missing.
    """
    base = (Path(root) if root is not None else datasets_root()) / folder
    listed = Path(split) if split.endswith(".txt") else base / f"{split}_set.txt"
    ids = [line.strip() for line in read_text(listed, "list of BRIGHT").splitlines() if line.strip()]
    # lists of the release name files: the optical one, or the id alone
    ids = [name.removesuffix(".tif").removesuffix("_pre_disaster") for name in ids]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if not ids or twice:
        raise UserError(f"list '{listed}' of BRIGHT " + (f"names '{twice[0]}' twice" if twice else "is empty"))
    keys = [key for key in _BRIGHT_FILES if with_labels or key != "sem_seg_file_name"]
    dicts = []
    for name in ids:
        paths = {key: base / _BRIGHT_FILES[key].format(name) for key in keys}
        missing = [path for path in paths.values() if not path.is_file()]
        if missing:
            raise UserError(f"list '{listed}' of BRIGHT names '{name}', but '{missing[0]}' does not exist")
        source = name.rpartition("_")[0] or name
        dicts.append({**{key: str(path) for key, path in paths.items()}, "image_id": name, "source": source})
    return dicts


def load_hetero_cd(
    scene: str,
    part: str,
    *,
    root: str | Path | None = None,
    folder: str = "hetero_cd",
    axis: Axis = "rows",
    strips: int = 6,
    gap_px: int = 8,
) -> list[dict[str, Any]]:
    """List strips of one change scene: every other one for training, the rest for testing, with gaps in between.

    Scenes, 8-bit pictures without georeference: ``shuguang`` and ``yellow_river`` are SAR and then optical,
    ``yellow_B`` and ``yellow_C`` SAR twice. Files: ``<scene>/{t1_sar,t2_opt|t2_sar,change_gt}.png``, changed is 255.

    Args:
        scene: which.
        part: ``train`` (strips 0, 2, ...), ``test`` (1, 3, ...) or ``all`` (the whole scene in one piece).
        root: folder of all data sets; None = `DETECTRON2_DATASETS`.
        folder: below the root.
        axis: ``rows`` cuts from top to bottom, ``columns`` from left to right.
        strips: how many.
        gap_px: pixels between two strips that belong to none.

    Raises:
        UserError: unknown scene, part or axis, a missing file, or strips without pixels.
    """
    if scene not in _HETERO_FILES:
        raise UserError(f"hetero_cd has no scene '{scene}'; it has: {', '.join(_HETERO_FILES)}")
    if part not in ("train", "test", "all") or axis not in get_args(Axis):
        raise UserError(f"hetero_cd has parts train, test, all and axes rows, columns; got '{part}' and '{axis}'")
    base = (Path(root) if root is not None else datasets_root()) / folder / scene
    files = {**_HETERO_FILES[scene], "sem_seg_file_name": "change_gt.png"}
    paths = {key: base / name for key, name in files.items()}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise UserError(f"change scene '{scene}' is not there: '{missing[0]}' does not exist")
    item: dict[str, Any] = {**{key: str(path) for key, path in paths.items()}, "label_map": dict(_HETERO_LABELS)}
    if part == "all":
        return [{**item, "image_id": scene}]
    height, width = _size(paths["sem_seg_file_name"])
    length = height if axis == "rows" else width
    if strips < 2 or gap_px < 0 or length // strips <= gap_px:
        raise UserError(f"{length} pixels of '{scene}' cannot make {strips} strips with gaps of {gap_px} pixels")
    dicts = []
    for number in range(0 if part == "train" else 1, strips, 2):
        first = length * number // strips + (gap_px // 2 if number else 0)
        last = length * (number + 1) // strips - (gap_px - gap_px // 2 if number < strips - 1 else 0)
        window = (first, 0, last - first, width) if axis == "rows" else (0, first, height, last - first)
        dicts.append({**item, "window": window, "image_id": f"{scene}_{axis}_{number}"})
    return dicts


class ChangeReader:
    """Read a pair of dates through another reader, stack two dates of one sensor, and cut the window out.

    A pixel is valid where both dates of a sensor are.

    Args:
        reader: reads one raster of each kind, for example `FileReader`.
        cache_mb: keep scenes in memory up to this size, so that many windows of one are read once; 0 keeps none.
    """

    def __init__(self, reader: Reader, *, cache_mb: int = 256) -> None:
        self.reader = reader
        self.sar_unit: SarUnit = sar_unit_of(reader)
        self.cache_mb = cache_mb
        self._kept: dict[tuple[str, ...], RawSample] = {}
        self._bytes = 0

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read a pair.

        Raises:
            UserError: a file is unusable, the dates differ in size, or the window reaches out of the scene.
        """
        raw = self._scene(dataset_dict)
        if "window" not in dataset_dict:
            return _cut(raw, slice(None), slice(None))
        row, col, height, width = dataset_dict["window"]
        known = next(array for array in (raw.optical, raw.sar, raw.sem_seg) if array is not None).shape
        if row < 0 or col < 0 or row + height > known[0] or col + width > known[1]:
            name = dataset_dict.get("sar_file_name", dataset_dict.get("file_name", "?"))
            raise UserError(
                f"window {list(dataset_dict['window'])} (row, column, height, width) reaches out of '{name}', which "
                f"has {known[0]}x{known[1]} pixels"
            )
        return _cut(raw, slice(row, row + height), slice(col, col + width))

    def _scene(self, dataset_dict: DatasetDict) -> RawSample:
        names = ("file_name", "sar_file_name", "before_file_name", "sar_before_file_name", "sem_seg_file_name")
        key = tuple(str(dataset_dict.get(name, "")) for name in names)
        if key in self._kept:
            return self._kept[key]
        later = {name: value for name, value in dataset_dict.items() if "before" not in name}
        raw = self.reader(cast(DatasetDict, later))
        earlier = {
            target: dataset_dict[source]  # type: ignore[literal-required]
            for source, target in (("before_file_name", "file_name"), ("sar_before_file_name", "sar_file_name"))
            if source in dataset_dict and target in dataset_dict
        }
        if earlier:
            raw = _stack(self.reader(cast(DatasetDict, earlier)), raw, dataset_dict)
        arrays = (raw.optical, raw.optical_valid, raw.sar, raw.sar_valid, raw.sem_seg)
        size = sum(array.nbytes for array in arrays if array is not None)
        if self._bytes + size <= self.cache_mb * 1_000_000:
            self._kept[key] = raw
            self._bytes += size
        return raw


class EachDate:
    """Jitter the dates of a stack one by one: light and gain of one date tell nothing of the other.

    Args:
        jitter: changes (H, W, C) of one date, see `mmovseg.data.transforms.photometric`.
        dates: parts of equal size along the channels.
    """

    def __init__(self, jitter: Jitter, *, dates: int = 2) -> None:
        self.jitter, self.dates = jitter, dates

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W, dates * C) -> the same shape.

        Raises:
            UserError: the channels do not divide among the dates.
        """
        if image.shape[2] % self.dates:
            raise UserError(f"{image.shape[2]} channels cannot be {self.dates} dates")
        parts: Sequence[np.ndarray] = np.split(image, self.dates, axis=2)
        return np.concatenate([self.jitter(part, rng) for part in parts], axis=2)


def _stack(earlier: RawSample, later: RawSample, dataset_dict: DatasetDict) -> RawSample:
    changed: dict[str, np.ndarray] = {}
    for name in ("optical", "sar"):
        one, other = getattr(earlier, name), getattr(later, name)
        if one is None:
            continue
        if one.shape != other.shape:
            key = "before_file_name" if name == "optical" else "sar_before_file_name"
            raise UserError(
                f"'{dataset_dict.get(key)}' is {one.shape} but its later date is {other.shape} (height, width, bands)"
            )
        changed[name] = np.concatenate([one, other], axis=2)
        changed[f"{name}_valid"] = getattr(earlier, f"{name}_valid") & getattr(later, f"{name}_valid")
    return replace(later, **changed)  # type: ignore[arg-type]


def _cut(raw: RawSample, rows: slice, columns: slice) -> RawSample:
    """Return copies of a part, which the caller may change."""
    names = ("optical", "optical_valid", "sar", "sar_valid", "sem_seg")
    parts = {name: None if (array := getattr(raw, name)) is None else array[rows, columns].copy() for name in names}
    return replace(raw, **parts, facts=dict(raw.facts))  # type: ignore[arg-type]


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image  # opening a picture reads its header only

    with Image.open(path) as image:
        return image.height, image.width
