"""OMBRIA: floods seen by Sentinel-1 and Sentinel-2 before and after, 256 px at about 10 m, without georeference.

Bands: optical is false colour (short-wave infrared, near infrared, green), 8 bit; vegetation is green, water dark
blue, cloud cyan to white. SAR is one 8-bit channel (VV), uncalibrated. Classes: 0 dry land and everything else,
permanent water too; 1 flooded on the later date. The masks are those of Copernicus EMS rapid mapping, drawn in haste
and not always on the day of the images.

Source: https://github.com/geodrak/OMBRIA (MIT); Drakonakis et al., "OmbriaNet", IEEE JSTARS 2022.
Prepared by `datasets/prepare_ombria.py`, which says how the download is laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mmovseg.data.datasets.folders import load_pair_folder
from mmovseg.data.datasets.ombria_facts import PlaceFacts, cloud_mask, read_places
from mmovseg.data.io import read_label, read_optical, read_sar
from mmovseg.data.sample import IGNORE_LABEL, DatasetDict, RawSample
from mmovseg.data.sar import SarUnit
from mmovseg.errors import UserError

Dates = Literal["after", "both"]
Split = Literal["train", "val", "test", "test2021"]
SPLITS: tuple[Split, ...] = get_args(Split)
NUM_FOLDS = 5

GSD_M = 10.0


def load_ombria(
    split: str,
    *,
    root: str | Path | None = None,
    folder: str = "ombria",
    dates: Dates = "both",
    fold: int | None = None,
    num_folds: int = NUM_FOLDS,
    window: int | None = None,
) -> list[DatasetDict]:
    """List the places of a split.

    The set names only a training and a test part, so validation is a fold of the training part: ``val`` is fold
    `fold`, ``train`` the rest (all of it when `fold` is None). Neighbouring places are never in two folds, because they
    show one flood in one image; see `assign_folds`.

    Args:
        split: ``train``, ``val``, ``test``, or ``test2021``, four floods apart from the others.
        root: folder of all data sets, None = `DETECTRON2_DATASETS`.
        folder: below the root.
        dates: the later date alone, or both.
        fold: which part of ``train`` is held out, 0 .. num_folds - 1; ``val`` needs it.
        num_folds: parts in all.
        window: cut every place into squares of this many pixels, one sample each; None = whole places.

    Returns:
        Dataset dicts with `cloud_fraction` of the later date; `OmbriaReader` reads them.

    Raises:
        UserError: unknown split or dates, a fold out of range or missing, a window that does not divide the place, or
            the prepared set is not there.
    """
    if split not in SPLITS:
        raise UserError(f"OMBRIA has no split '{split}'; it has: {', '.join(SPLITS)}")
    if dates not in get_args(Dates):
        raise UserError(f"OMBRIA has no dates '{dates}'; it has: {', '.join(get_args(Dates))}")
    if split == "val" and fold is None:
        raise UserError("split 'val' of OMBRIA is a fold of its training part; give fold=0, for example")
    if fold is not None and (split not in ("train", "val") or not 0 <= fold < num_folds):
        raise UserError(f"fold {fold} of {num_folds} does not exist for split '{split}' of OMBRIA")
    base = _root(root) / folder
    stored = "train" if split == "val" else split
    facts = {place: row for (where, place), row in read_places(base).items() if where == stored}
    dicts = _list_places(base / stored, facts, dates)
    if fold is not None:
        folds = assign_folds(list(facts.values()), num_folds)
        dicts = [item for item in dicts if (folds[item["image_id"]] == fold) == (split == "val")]
    return dicts if window is None else [part for item in dicts for part in _windows(item, window)]


def assign_folds(facts: Sequence[PlaceFacts], num_folds: int = NUM_FOLDS) -> dict[str, int]:
    """Deal groups of neighbours to folds: as equal in places, cloudy places and flooded area as groups allow.

    Largest group first, each to the fold that then is least uneven; equal choices go to the lowest number. The same
    places always give the same folds, in whatever order they come.

    Returns:
        place -> fold.

    Raises:
        UserError: fewer groups than folds.
    """
    groups: dict[str, list[PlaceFacts]] = {}
    for row in sorted(facts, key=lambda row: row.place):
        groups.setdefault(row.group, []).append(row)
    if num_folds < 2 or len(groups) < num_folds:
        raise UserError(f"{len(facts)} places in {len(groups)} groups of neighbours cannot make {num_folds} folds")
    total = _weights(facts)
    loads = np.zeros((num_folds, len(total)))
    folds: dict[str, int] = {}
    for _, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        added = _weights(members) / np.maximum(total, 1e-9)
        unevenness = [
            float(np.square(loads + added * (np.arange(num_folds) == k)[:, None]).sum()) for k in range(num_folds)
        ]
        best = int(np.argmin(np.round(unevenness, 9)))
        loads[best] += added
        folds |= {row.place: best for row in members}
    return folds


class OmbriaReader:
    """Read one place: optical (H, W, 3 or 6), SAR (H, W, 1 or 2), both earlier date first, labels 0 dry, 1 flooded.

    SAR is the 8-bit number as stored, as float32; no calibration is published, so there is no dB to be had. Pixels
    outside the scene are invalid in all rasters and 255 in the label. `facts["cloud_alpha"]` is the cloud mask of the
    later date (0 or 1), by which evaluations group.

    Args:
        mask_clouds: call cloudy pixels of the later date missing in optical, so that SAR stands in for them.
        cache_mb: keep rasters that were read in memory, up to this size; a place takes 0.6 MB. 0 keeps none.
    """

    sar_unit: SarUnit = "amplitude8"

    def __init__(self, *, mask_clouds: bool = False, cache_mb: int = 1024) -> None:
        self.mask_clouds = mask_clouds
        self.cache_mb = cache_mb
        self._kept: dict[str, np.ndarray] = {}
        self._bytes = 0

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read what the dict names; a modality whose later date is not named is absent.

        Raises:
            UserError: a file is missing or damaged, sizes differ, or the label is not named.
        """
        if "sem_seg_file_name" not in dataset_dict:
            place = dataset_dict.get("image_id", "?")
            raise UserError(
                f"OMBRIA's place '{place}' is given without its label, which says where it has data; give a vocabulary"
            )
        label = self._read("label", dataset_dict["sem_seg_file_name"], None)
        row, col, height, width = dataset_dict.get("window", (0, 0, *label.shape))
        cut = (slice(row, row + height), slice(col, col + width))
        valid = label[cut] != IGNORE_LABEL
        sample = RawSample(sem_seg=label[cut].astype(np.int64))
        if "file_name" in dataset_dict:
            images = self._read_dates("optical", dataset_dict, ("before_file_name", "file_name"), label)
            clouds = cloud_mask(images[-1][cut])
            sample.optical = np.concatenate(images, axis=2)[cut]
            sample.optical_valid = valid & ~clouds if self.mask_clouds else valid.copy()
            sample.facts["cloud_alpha"] = clouds.astype(np.float32)
        if "sar_file_name" in dataset_dict:
            images = self._read_dates("sar", dataset_dict, ("sar_before_file_name", "sar_file_name"), label)
            sample.sar, sample.sar_valid = np.concatenate(images, axis=2)[cut].astype(np.float32), valid.copy()
        return sample

    def _read_dates(
        self, role: str, dataset_dict: DatasetDict, keys: Sequence[str], label: np.ndarray
    ) -> list[np.ndarray]:
        paths = [str(dataset_dict[key]) for key in keys if key in dataset_dict]  # type: ignore[literal-required]
        return [self._read(role, path, label) for path in paths]

    def _read(self, role: str, path: str, label: np.ndarray | None) -> np.ndarray:
        """Return a raster as uint8, (H, W) for labels and else (H, W, B); the caller must not change it."""
        if path in self._kept:
            return self._kept[path]
        raster = _READERS[role](path)
        if label is not None and raster.shape[:2] != label.shape:
            sizes = "x".join(map(str, raster.shape[:2])), "x".join(map(str, label.shape))
            raise UserError(f"'{path}' is {sizes[0]} pixels but the label of the place is {sizes[1]}")
        if self._bytes + raster.nbytes <= self.cache_mb * 1_000_000:
            self._kept[path] = raster
            self._bytes += raster.nbytes
        return raster


_READERS: dict[str, Callable[[str], np.ndarray]] = {
    "optical": lambda path: read_optical(path)[0].astype(np.uint8),
    "sar": lambda path: np.nan_to_num(read_sar(path)[0]).astype(np.uint8),
    "label": lambda path: read_label(path).astype(np.uint8),
}


def _root(root: str | Path | None) -> Path:
    if root is not None:
        return Path(root)
    from mmovseg.data.datasets.catalog import datasets_root  # the catalog imports this module

    return datasets_root()


def _list_places(folder: Path, facts: dict[str, PlaceFacts], dates: Dates) -> list[DatasetDict]:
    after = load_pair_folder(folder / "optical", folder / "sar", folder / "label")
    before = {"optical": {}, "sar": {}} if dates == "after" else _before(folder)
    dicts: list[DatasetDict] = []
    for item in after:
        place = item["image_id"]
        if place not in facts:
            raise UserError(f"place '{place}' of '{folder}' is not in places.csv; run datasets/prepare_ombria.py again")
        entry: DatasetDict = {**item, "gsd_m": GSD_M, "cloud_fraction": facts[place].cloud_after}  # type: ignore[typeddict-item]
        if dates == "both":
            entry["before_file_name"] = before["optical"][place]
            entry["sar_before_file_name"] = before["sar"][place]
        dicts.append(entry)
    return dicts


def _before(folder: Path) -> dict[str, dict[str, str]]:
    pairs = load_pair_folder(folder / "optical_before", folder / "sar_before", folder / "label")
    keys = {"optical": "file_name", "sar": "sar_file_name"}
    return {role: {item["image_id"]: item[key] for item in pairs} for role, key in keys.items()}


def _windows(item: DatasetDict, size: int) -> Iterable[DatasetDict]:
    height, width = read_label(item["sem_seg_file_name"]).shape
    if size < 1 or height % size or width % size:
        raise UserError(f"a window of {size} pixels does not divide '{item['file_name']}', {height}x{width}")
    for row in range(0, height, size):
        for col in range(0, width, size):
            yield {**item, "image_id": f"{item['image_id']}_{row:03d}_{col:03d}", "window": (row, col, size, size)}


def _weights(rows: Sequence[PlaceFacts]) -> np.ndarray:
    return np.array(
        [len(rows), sum(row.is_cloudy for row in rows), sum(row.flood_fraction for row in rows)], dtype=float
    )
