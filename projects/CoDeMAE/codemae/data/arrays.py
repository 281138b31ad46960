"""Pairs that are stored as NumPy arrays, as the release stores Sentinel-1 and Sentinel-2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmovseg.data.io import read_label
from mmovseg.data.sample import DatasetDict, RawSample
from mmovseg.errors import UserError


class ArrayReader:
    """Read ``.npy`` files of (H, W, B), 8 bit: optical bands by number, SAR as (VV, VH, their mean).

    Source: the release's linear probe (DFC20, BigEarthNet, EuroSAT), whose SAR has two bands; the models that it made
    have three channels for SAR.

    Args:
        bands: 1-based numbers of red, green and blue.
        with_mean: append the mean of the SAR bands.
    """

    sar_unit = "amplitude8"

    def __init__(self, *, bands: Sequence[int] = (4, 3, 2), with_mean: bool = True) -> None:
        self.bands, self.with_mean = tuple(bands), with_mean

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read one pair; labels are rasters of one band.

        Raises:
            UserError: a file is no such array, or lacks a band.
        """
        sample = RawSample()
        if "file_name" in dataset_dict:
            path = dataset_dict["file_name"]
            stored = load_array(path, ndim=3)
            if stored.dtype != np.uint8:
                raise UserError(f"optical array '{path}' is {stored.dtype}, not uint8")
            if not all(1 <= band <= stored.shape[2] for band in self.bands):
                raise UserError(f"optical array '{path}' has {stored.shape[2]} bands, not the bands {self.bands}")
            sample.optical = np.ascontiguousarray(stored[:, :, [band - 1 for band in self.bands]])
            sample.optical_valid = np.ones(stored.shape[:2], dtype=bool)
        if "sar_file_name" in dataset_dict:
            sar = load_array(dataset_dict["sar_file_name"], ndim=3).astype(np.float32)
            sar = np.concatenate([sar, sar.mean(axis=2, keepdims=True)], axis=2) if self.with_mean else sar
            sample.sar, sample.sar_valid = sar, np.isfinite(sar).all(axis=2)
        if "sem_seg_file_name" in dataset_dict:
            sample.sem_seg = read_label(dataset_dict["sem_seg_file_name"])
        return sample


def load_array(path: str | Path, *, ndim: int) -> np.ndarray:
    """Read a NumPy file; nothing in it is executed.

    Raises:
        UserError: it is missing or broken, or has another number of axes.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise UserError(f"array '{path}' cannot be read: {reason}") from error
    if not isinstance(array, np.ndarray) or array.ndim != ndim or not array.size:
        raise UserError(f"array '{path}' must have {ndim} axes, but has the shape {getattr(array, 'shape', '?')}")
    return array
