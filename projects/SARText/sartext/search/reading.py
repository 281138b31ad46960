"""Read any image of a folder as the input of an image-text model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mmovseg.data.io import read_optical, read_sar
from mmovseg.data.sample import ModelInput
from mmovseg.data.sar import SarUnit, convert_sar
from mmovseg.errors import UserError, one_line
from mmovseg.inference.pair import likely_sar_unit
from mmovseg.visualization.draw import optical_to_rgb, sar_to_rgb


@dataclass(frozen=True)
class ImageReading:
    """How files become samples; part of what an index is made of.

    modality: which raster the model reads.
    bands: 1-based; red, green and blue of optical files, or the SAR bands in the order of the model. None = as stored.
    optical_range: stored values that are black and white, see `mmovseg.data.io.read_optical`.
    sar_unit_in: unit of SAR files; None takes whole numbers of 0..255 for 8-bit amplitude and negative ones for dB.
    sar_unit: unit that the model reads.
    channels: SAR channels that the model reads, None = any; a single band is given to it as often as it wants.
    """

    modality: Literal["optical", "sar"]
    bands: tuple[int, ...] | None = None
    optical_range: tuple[float, float] | None = None
    sar_unit_in: SarUnit | None = None
    sar_unit: SarUnit = "db"
    channels: int | None = None

    def __str__(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None}, sort_keys=True)

    def read(self, path: str) -> ModelInput:
        """Return the sample of one file.

        Raises:
            UserError: it is unusable, of an unclear unit, or has other bands than the model reads.
        """
        values, valid = self._read(path)
        key, mask = ("image", "valid") if self.modality == "optical" else ("sar", "sar_valid")
        item: dict[str, Any] = {key: torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))}
        if not valid.all():
            item[mask] = torch.from_numpy(valid)
        return {**item, "height": values.shape[0], "width": values.shape[1], "file_name": path}  # type: ignore[typeddict-item,return-value]

    def show(self, path: str) -> np.ndarray:
        """Return one file as a picture, (H, W, 3) uint8; errors as `read`."""
        values, valid = self._read(path)
        return (
            optical_to_rgb(values, valid)
            if self.modality == "optical"
            else sar_to_rgb(values, valid, unit=self.sar_unit)
        )

    def _read(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        if self.modality == "optical":
            return read_optical(path, bands=self.bands, optical_range=self.optical_range)
        sar, valid = read_sar(path, bands=self.bands)
        if not valid.any():
            raise UserError(f"SAR raster '{path}' holds no data")
        unit = self.sar_unit_in or likely_sar_unit(sar, path)
        sar = convert_sar(sar, unit_in=unit, unit_out=self.sar_unit)
        if self.channels is not None and sar.shape[2] != self.channels:
            if not np.array_equal(sar, np.repeat(sar[..., :1], sar.shape[2], axis=2), equal_nan=True):
                raise UserError(
                    f"SAR raster '{path}' has {sar.shape[2]} bands, the model reads {self.channels}; "
                    "choose with --bands"
                )
            sar = np.repeat(sar[..., :1], self.channels, axis=2)
        return sar, valid


def reading_for(
    contract: Mapping[str, Any] | None,
    modality: Literal["optical", "sar"],
    *,
    bands: Sequence[int] | None = None,
    optical_range: Sequence[float] | None = None,
    sar_unit_in: SarUnit | None = None,
    picked: Sequence[int] | None = None,
) -> ImageReading:
    """Return the reading that a model asks for.

    Args:
        contract: input contract of the model as a dict; None = dB, any channels.
        modality: of the model.
        bands: see `ImageReading`.
        optical_range: see `ImageReading`.
        sar_unit_in: see `ImageReading`.
        picked: channels that the model itself picks out of the raster, from 0, instead of reading all.
    """
    sar = (contract or {}).get("sar") or {}
    channels = len(sar["bands"]) if sar else None
    if picked is not None:
        channels = max(picked) + 1 if max(picked) > 0 else None  # the first band is in every raster
    return ImageReading(
        modality=modality,
        bands=None if bands is None else tuple(int(band) for band in bands),
        optical_range=None if optical_range is None else (float(optical_range[0]), float(optical_range[1])),
        sar_unit_in=sar_unit_in,
        sar_unit=sar.get("unit", "db") if modality == "sar" else "db",
        channels=channels if modality == "sar" else None,
    )


class _Files(Dataset):
    """Samples by number; one that cannot be read is a sentence."""

    def __init__(self, paths: Sequence[str], reading: ImageReading) -> None:
        self.paths, self.reading = paths, reading

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> ModelInput | str:
        try:
            return self.reading.read(self.paths[number])
        except UserError as error:
            return one_line(error)


def read_batches(
    paths: Sequence[str], reading: ImageReading, *, batch_size: int = 64, workers: int = 0
) -> Iterator[list[ModelInput | str]]:
    """Yield the samples of files in their order, `batch_size` at a time.

    Args:
        paths: the files.
        reading: how they become samples.
        batch_size: samples in a list; the last one may be shorter.
        workers: processes that read; 0 reads in this one.

    Returns:
        Lists in which a file that cannot be read is the sentence that says why.
    """
    yield from DataLoader(
        _Files(paths, reading),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        # spawn: GDAL and torch hold threads and locks that a forked child would inherit half-way
        multiprocessing_context="spawn" if workers else None,
    )
