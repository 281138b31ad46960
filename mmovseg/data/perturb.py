"""Disturbed SAR, to measure what a fused model owes to the right pair: another place's SAR, and SAR that is moved.

Both are readers around a reader, so they work for every data set, and optical image and label stay what they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from mmovseg.data.sample import DatasetDict, RawSample, Reader
from mmovseg.errors import UserError

_DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def shuffle_sar(*, dataset: Sequence[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Name for every sample another one whose SAR raster `SarOfAnother` takes, under the key `sar_from`.

    The samples form one random circle (Sattolo's algorithm), so none keeps its own SAR and each raster is used once.

    Args:
        dataset: dataset dicts; they are not changed.
        seed: which circle.

    Raises:
        UserError: fewer than two samples, or one without SAR.
    """
    if len(dataset) < 2:
        raise UserError(f"SAR can be shuffled among two samples or more, the data set has {len(dataset)}")
    for sample in dataset:
        if "sar_file_name" not in sample:
            raise UserError(f"sample '{_name(sample)}' has no SAR raster, so SAR cannot be shuffled in this data set")
    order, rng = list(range(len(dataset))), np.random.default_rng(seed)
    for last in range(len(order) - 1, 0, -1):
        other = int(rng.integers(last))
        order[last], order[other] = order[other], order[last]
    return [{**sample, "sar_from": dict(dataset[other])} for sample, other in zip(dataset, order, strict=True)]


class SarOfAnother:
    """Read each sample with the SAR raster of the sample that its `sar_from` names (see `shuffle_sar`).

    A raster of another size than the sample is laid at its upper left corner: what is too much is cut off, what is
    missing is invalid.

    Args:
        reader: reads both samples.
    """

    def __init__(self, *, reader: Reader) -> None:
        self.reader = reader

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read one sample.

        Raises:
            UserError: the dict has no `sar_from`, that sample has no SAR, or `reader` fails.
        """
        other = dataset_dict.get("sar_from")
        if other is None:
            raise UserError(f"sample '{_name(dataset_dict)}' does not say whose SAR to take: use shuffle_sar first")
        own = self.reader(_without(dataset_dict, "sar_file_name", "sar_from"))
        taken = self.reader(_without(other, "file_name", "sem_seg_file_name", "sar_from"))
        if taken.sar is None:
            raise UserError(f"sample '{_name(other)}' has no SAR raster to take")
        sar, valid = taken.sar, np.ones(taken.sar.shape[:2], bool) if taken.sar_valid is None else taken.sar_valid
        shown = own.optical if own.optical is not None else own.sem_seg
        if shown is not None and shown.shape[:2] != sar.shape[:2]:
            sar, valid = _fitted(sar, shown.shape[:2]), _fitted(valid, shown.shape[:2])
        return replace(own, sar=sar, sar_valid=valid)


class ShiftedSar:
    """Read samples with the SAR raster moved by whole pixels, as if it were badly registered.

    Each sample is moved in one of the four directions along the axes, drawn from (`seed`, image id), so that the mean
    over a data set prefers none. The margin that opens is invalid: nothing is known there.

    Args:
        reader: reads the sample.
        shift_px: how far, pixels; 0 changes nothing.
        only_margin: a control: nothing moves, but the same margin is invalid.
        seed: of the directions.

    Raises:
        UserError: a negative shift.
    """

    def __init__(self, *, reader: Reader, shift_px: int, only_margin: bool = False, seed: int = 0) -> None:
        if shift_px < 0:
            raise UserError(f"SAR is shifted by 0 pixels or more, got shift_px={shift_px}")
        self.reader = reader
        self.shift_px = int(shift_px)
        self.only_margin = only_margin
        self.seed = seed

    def direction(self, dataset_dict: DatasetDict) -> tuple[int, int]:
        """Return (down, right) of this sample's shift, one of them 0 and the other 1 or -1."""
        rng = np.random.default_rng([self.seed, zlib.crc32(_name(dataset_dict).encode())])
        return _DIRECTIONS[int(rng.integers(len(_DIRECTIONS)))]

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read one sample.

        Raises:
            UserError: the SAR raster is not larger than the shift, or `reader` fails.
        """
        raw = self.reader(dataset_dict)
        if raw.sar is None or self.shift_px == 0:
            return raw
        height, width = raw.sar.shape[:2]
        if self.shift_px >= min(height, width):
            raise UserError(
                f"SAR of sample '{_name(dataset_dict)}' is {height}x{width} pixels and cannot be shifted by "
                f"{self.shift_px}"
            )
        down, right = (part * self.shift_px for part in self.direction(dataset_dict))
        target = _window(height, down), _window(width, right)
        source = target if self.only_margin else (_window(height, -down), _window(width, -right))
        sar, valid = np.zeros_like(raw.sar), np.zeros((height, width), dtype=bool)
        sar[target] = raw.sar[source]
        valid[target] = True if raw.sar_valid is None else raw.sar_valid[source]
        return replace(raw, sar=sar, sar_valid=valid)


def _window(size: int, shift: int) -> slice:
    """Return where along one axis pixels lie that were moved there by `shift`."""
    return slice(max(0, shift), size + min(0, shift))


def _fitted(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    height, width = min(array.shape[0], size[0]), min(array.shape[1], size[1])
    fitted = np.zeros((size[0], size[1], *array.shape[2:]), dtype=array.dtype)
    fitted[:height, :width] = array[:height, :width]
    return fitted


def _without(dataset_dict: DatasetDict, *dropped: str) -> DatasetDict:
    return cast(DatasetDict, {key: value for key, value in dataset_dict.items() if key not in dropped})


def _name(dataset_dict: DatasetDict | dict[str, Any]) -> str:
    return str(dataset_dict.get("image_id", dataset_dict.get("file_name", dataset_dict.get("sar_file_name", "?"))))
