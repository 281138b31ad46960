"""Windows of one raster on the grid of the map: which pixels to read, in pieces of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mmovseg.errors import UserError
from mmovseg.inference.scene.resample import find_taps, sample_axes, sample_points, span
from mmovseg.inference.scene.sources import Source
from mmovseg.inference.scene.warp import PixelMap

Resampling = Literal["nearest", "bilinear", "average"]
RESAMPLINGS: tuple[Resampling, ...] = get_args(Resampling)

AVERAGE_FROM = 1.5
"""A raster this much finer than what is asked for, along an axis, is averaged along it."""

_MOST_SAMPLES = 64  # per pixel and axis
_SAMPLES_AT_ONCE = {True: 1 << 19, False: 1 << 17}  # keyed by whether columns and rows are independent
_SNAP = 2.0**20


@dataclass(frozen=True)
class Lattice:
    """A window of the map, (h, w) results of equal size.

    row, column: of its upper left corner in pixels of the map. height, width: its size in pixels of the map.
    """

    row: float
    column: float
    height: float
    width: float
    h: int
    w: int

    def piece(self, rows: slice, columns: slice, per_pixel: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return columns (w * nx,) and rows (h * ny,) of the samples of some of the results."""
        x = _positions(self.column, self.width / self.w, columns, per_pixel[1])
        y = _positions(self.row, self.height / self.h, rows, per_pixel[0])
        return x, y


def _positions(start: float, step: float, part: slice, count: int) -> np.ndarray:
    """Return the positions of samples; the same for one pixel of the map whichever window it is asked for in."""
    within = (np.arange(count) + 0.5) / count
    corners = np.arange(part.start, part.stop, dtype=np.float64)
    if step == 1.0:
        return np.asarray(((start + corners)[:, None] + within).ravel())
    # Rounded to a millionth of a pixel, or the way that `start` was reached would show in the last bit.
    return np.asarray(np.rint((start + (corners[:, None] + within) * step) * _SNAP).ravel() / _SNAP)


class Sampler:
    """Read one raster on the grid of the map.

    Args:
        source: the raster.
        pixel_map: from the map to the raster.
        resampling: None = interpolate, but average along axes where the raster is `AVERAGE_FROM` times finer.
        any_counts: for masks: a result is the sum of its samples' pixels, without interpolation.

    Raises:
        UserError: an unknown resampling.
    """

    def __init__(
        self, source: Source, pixel_map: PixelMap, *, resampling: str | None = None, any_counts: bool = False
    ) -> None:
        if resampling is not None and resampling not in RESAMPLINGS:
            raise UserError(
                f"unknown resampling '{resampling}' for '{source.raster.path}'; known: {', '.join(RESAMPLINGS)}"
            )
        self.source, self.map = source, pixel_map
        self.resampling, self.any_counts = resampling, any_counts
        jacobian = pixel_map.jacobian()
        # How many pixels of the raster a step by one pixel of the map crosses: (down, across).
        self.ratios = (1.0, 1.0) if jacobian is None else tuple(np.abs(jacobian).max(axis=0)[::-1].tolist())

    def samples_per_pixel(self, scale: tuple[float, float] = (1.0, 1.0)) -> tuple[int, int]:
        """Return (ny, nx) for results that span `scale` (down, across) pixels of the map."""
        if self.resampling in ("nearest", "bilinear"):
            return 1, 1
        least = 1.0 if self.resampling == "average" else AVERAGE_FROM
        counts = []
        for ratio, pixels in zip(self.ratios, scale, strict=True):
            crossed = round(ratio * pixels, 2)  # sizes that differ by rounding of windows get one number of samples
            counts.append(1 if crossed < least else min(math.ceil(crossed), _MOST_SAMPLES))
        return counts[0], counts[1]

    def is_direct(self, lattice: Lattice) -> bool:
        """Whether results are pixels of the raster as they are."""
        return self.map.kind == "shift" and (lattice.height, lattice.width) == (lattice.h, lattice.w)

    def read(self, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
        """Return (B, h, w) float32, 0 where not valid, and (h, w) bool.

        Raises:
            UserError: the raster is damaged.
        """
        per_pixel = self.samples_per_pixel((lattice.height / lattice.h, lattice.width / lattice.w))
        averaged = per_pixel != (1, 1)
        values = np.zeros((self.source.channels, lattice.h, lattice.w), dtype=np.float32)
        valid = np.zeros((lattice.h, lattice.w), dtype=bool)
        if self.is_direct(lattice):
            self._copy(lattice, values, valid)
            return values, valid
        for rows, columns in self._pieces(lattice, per_pixel):
            piece = self._sample(lattice, rows, columns, per_pixel)
            if piece is None:
                continue
            sampled, data = piece
            sampled = self.source.finish(sampled, averaged=averaged)
            if not data.all():
                sampled *= data
            values[:, rows, columns], valid[rows, columns] = sampled, data
        return values, valid

    def _copy(self, lattice: Lattice, values: np.ndarray, valid: np.ndarray) -> None:
        """Fill in the pixels of a raster on the same lattice."""
        row, column = int(lattice.row + self.map.affine.f), int(lattice.column + self.map.affine.c)
        source = self.source.raster.source
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + lattice.h, source.height), min(column + lattice.w, source.width)
        if bottom <= top or right <= left:
            return
        planes, holes = self.source.planes(top, left, bottom - top, right - left, averaged=False)
        part = (slice(top - row, bottom - row), slice(left - column, right - column))
        values[:, part[0], part[1]] = self.source.finish(planes, averaged=False)
        valid[part] = True if holes is None else holes == 0
        if holes is not None:
            values *= valid

    def _pieces(self, lattice: Lattice, per_pixel: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
        ny, nx = per_pixel
        most = _SAMPLES_AT_ONCE[self.map.is_separable]
        crossed = max(self.ratios[0] / ny, self.ratios[1] / nx, 1.0)
        most = max(int(most / crossed**2), 1)
        height = min(lattice.h, 256 if self.map.is_separable else 128, max(8, math.isqrt(most) // ny))
        width = max(1, min(lattice.w, most // (height * ny * nx)))
        for row in range(0, lattice.h, height):
            for column in range(0, lattice.w, width):
                yield slice(row, min(row + height, lattice.h)), slice(column, min(column + width, lattice.w))

    def _sample(
        self, lattice: Lattice, rows: slice, columns: slice, per_pixel: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Sample a piece; None where the raster does not reach."""
        x, y = lattice.piece(rows, columns, per_pixel)
        raster = self.source.raster.source
        sx, sy = self.map.axes(x, y) if self.map.is_separable else self.map.points(x, y)
        across, down = find_taps(sx, raster.width), find_taps(sy, raster.height)
        inside_x, inside_y = across.inside, down.inside
        if not self.map.is_separable:
            inside_x = inside_y = inside_x & inside_y
        if not (inside_x.any() and inside_y.any()):
            return None
        span_x, span_y = span(across, inside_x), span(down, inside_y)
        planes, holes = self._window(span_y, span_x, averaged=per_pixel != (1, 1))
        across, down = across.after(span_x[0], inside_x), down.after(span_y[0], inside_y)
        sample = sample_axes if self.map.is_separable else sample_points
        nearest = self.any_counts or self.resampling == "nearest"
        return sample(planes, holes, across, down, nearest=nearest, per_pixel=per_pixel)

    def _window(
        self, rows: tuple[int, int], columns: tuple[int, int], *, averaged: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a window whose last row and column may lie one beyond the raster; these count for nothing."""
        raster = self.source.raster.source
        height, width = rows[1] - rows[0], columns[1] - columns[0]
        inner_height, inner_width = min(rows[1], raster.height) - rows[0], min(columns[1], raster.width) - columns[0]
        planes, holes = self.source.planes(rows[0], columns[0], inner_height, inner_width, averaged=averaged)
        if (inner_height, inner_width) == (height, width):
            return planes, holes
        beyond = ((0, height - inner_height), (0, width - inner_width))
        return np.pad(planes, ((0, 0), *beyond)), None if holes is None else np.pad(holes, beyond)
