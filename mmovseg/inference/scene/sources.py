"""The rasters of a scene, opened: windows of them as planes that can be sampled.

One rule decides what is data and which unit it has, that of `mmovseg.data.io`. Planes are (B, h, w) float32 with 0
where there is no data; holes are (h, w) float32, 1 where there is no data, or None where all is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from rasterio.windows import Window

from mmovseg.data.io import optical_scaling, stored_to_optical, stored_to_sar
from mmovseg.data.raster import Raster
from mmovseg.data.sar import SarUnit, convert_sar
from mmovseg.errors import UserError

Planes = tuple[np.ndarray, np.ndarray | None]


class Placed(Protocol):
    """An open raster and the bands of it that matter."""

    raster: Raster
    bands: tuple[int, ...]


class Source(Placed, Protocol):
    """What is sampled."""

    @property
    def channels(self) -> int:
        """How many planes it gives."""

    def planes(self, row: int, column: int, height: int, width: int, *, averaged: bool) -> Planes:
        """Return a window inside the raster; `averaged`: means of several pixels will be taken."""

    def finish(self, values: np.ndarray, *, averaged: bool) -> np.ndarray:
        """Turn sampled planes into what the model is given."""


class OpticalSource:
    """Optical bands on the 0..255 scale.

    Args:
        raster: open.
        bands: 1-based; one band stands for all `channels`.
        channels: of the result.
        optical_range: see `mmovseg.data.io.read_optical`.
        nodata: a pixel is no data where all bands hold this value, besides what the file declares.

    Attributes:
        scaling, optical_range: see `mmovseg.data.io.optical_scaling`.

    Raises:
        UserError: the declared scale needs a range, or is of no use.
    """

    def __init__(
        self,
        raster: Raster,
        *,
        bands: Sequence[int],
        channels: int = 3,
        optical_range: tuple[float, float] | None = None,
        nodata: float | None = None,
    ) -> None:
        self.raster, self.bands = raster, tuple(bands)
        self._channels, self._nodata = channels, nodata
        self._palette = raster.palette()
        self.scaling, self.optical_range = optical_scaling(raster, self.bands, optical_range)

    @property
    def channels(self) -> int:
        """See `Source`."""
        return self._channels

    def stored(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (h, w, B) as the file holds or scales them and (h, w) bool, True where data."""
        window = Window(column, row, width, height)
        stored, valid = self.raster.read(self.bands, every_band=False, window=window)
        if self._nodata is not None:
            valid = valid & ~(np.isnan(stored) if np.isnan(self._nodata) else stored == self._nodata).all(axis=2)
        return stored if self.scaling is None else self.scaling.apply(stored), valid

    def pixels(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (h, w, channels), uint8 if stored so and no range is given, else float32, and (h, w) bool."""
        stored, valid = self.stored(row, column, height, width)
        image = stored_to_optical(
            stored, valid, palette=self._palette, optical_range=self.optical_range, source=self.raster.path
        )
        return image[:, :, : self._channels], valid

    def planes(self, row: int, column: int, height: int, width: int, *, averaged: bool) -> Planes:
        """See `Source`."""
        image, valid = self.pixels(row, column, height, width)
        planes = image.transpose(2, 0, 1).astype(np.float32)
        return planes, None if valid.all() else (~valid).astype(np.float32)

    def finish(self, values: np.ndarray, *, averaged: bool) -> np.ndarray:
        """See `Source`."""
        return values


class SarSource:
    """SAR bands in the unit of the model; means are taken of power.

    Args:
        raster: open.
        bands: 1-based; one band stands for all `channels`.
        channels: of the result.
        unit: of the file (complex samples are detected to ``linear``).
        unit_out: of the result.
        nodata: a pixel is no data where a band holds this value, besides what the file declares.

    Attributes:
        scaling: declared by the file, None for none.

    Raises:
        UserError: the declared scale is of no use.
    """

    def __init__(
        self,
        raster: Raster,
        *,
        bands: Sequence[int],
        channels: int,
        unit: SarUnit,
        unit_out: SarUnit,
        nodata: float | None = None,
    ) -> None:
        self.raster, self.bands = raster, tuple(bands)
        self.unit, self.unit_out = unit, unit_out
        self._channels, self._nodata = channels, nodata
        self.scaling = raster.scaling(self.bands)

    @property
    def channels(self) -> int:
        """See `Source`."""
        return self._channels

    def stored(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (h, w, bands) float32 in the unit of the file, NaN where no data, and (h, w) bool."""
        window = Window(column, row, width, height)
        stored, valid = self.raster.read(self.bands, every_band=True, window=window)
        return stored_to_sar(stored, valid, nodata=self._nodata, scaling=self.scaling)

    def planes(self, row: int, column: int, height: int, width: int, *, averaged: bool) -> Planes:
        """See `Source`."""
        sar, valid = self.stored(row, column, height, width)
        sar = convert_sar(sar, unit_in=self.unit, unit_out="linear" if averaged else self.unit_out)
        planes = np.ascontiguousarray(sar.transpose(2, 0, 1))
        if valid.all():
            return planes, None
        planes[:, ~valid] = 0.0
        return planes, (~valid).astype(np.float32)

    def finish(self, values: np.ndarray, *, averaged: bool) -> np.ndarray:
        """See `Source`."""
        if averaged:
            values = convert_sar(values, unit_in="linear", unit_out=self.unit_out)
        return np.repeat(values, self._channels, axis=0) if len(values) < self._channels else values


class PlaceSource:
    """A raster that only says where the map lies; its pixels are not read."""

    def __init__(self, raster: Raster) -> None:
        self.raster = raster
        self.bands: tuple[int, ...] = (1,)


class CloudSource:
    """A cloud mask as one plane: 1 where the file holds anything but 0, no data included as 0."""

    def __init__(self, raster: Raster) -> None:
        self.raster = raster
        self.bands = tuple(raster.data_bands())
        if len(self.bands) != 1:
            raise UserError(
                f"cloud mask '{raster.path}' has {len(self.bands)} bands; it must have one that is not 0 where cloud is"
            )

    @property
    def channels(self) -> int:
        """See `Source`."""
        return 1

    def planes(self, row: int, column: int, height: int, width: int, *, averaged: bool) -> Planes:
        """See `Source`."""
        window = Window(column, row, width, height)
        stored, valid = self.raster.read(self.bands, every_band=True, window=window)
        return ((stored[:, :, 0] != 0) & valid).astype(np.float32)[None], None

    def finish(self, values: np.ndarray, *, averaged: bool) -> np.ndarray:
        """See `Source`."""
        return (values > 0).astype(np.float32)
