"""Values of a raster at positions between its pixels; each depends on its position alone, to the last bit.

Every sum is written out in a fixed order, so that a pixel is the same whichever window it is read in. Planes are
(B, h, w) float32 with 0 where there is no data; holes are (h, w) float32, 1 where there is no data, or None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Taps:
    """Along one axis, the two pixels that a position lies between.

    first: index of the pixel whose middle lies at or before the position; the second is the one after it.
    weight: float32 of the second. inside: of the raster.
    """

    first: np.ndarray
    weight: np.ndarray
    inside: np.ndarray

    @property
    def nearest(self) -> np.ndarray:
        """0 or 1: in which of the two pixels the position lies."""
        return np.asarray(self.weight >= 0.5).astype(np.intp)

    def after(self, start: int, inside: np.ndarray) -> Taps:
        """Return taps counted from pixel `start`, pixel 0 where not `inside`."""
        first = self.first - start
        if not inside.all():
            first[~inside] = 0
        return Taps(first, self.weight, inside)


def find_taps(position: np.ndarray, size: int) -> Taps:
    """Find the pixels around positions.

    Args:
        position: any shape, in pixels, 0 = outer edge of the first pixel; NaN = nowhere.
        size: pixels along the axis.

    Returns:
        Arrays of the same shape. Positions in the outer half of an edge pixel have its value; those outside point at
        pixel 0 with `inside` False.
    """
    inside = position >= 0.0
    inside &= position < size
    centred = position - 0.5
    np.clip(centred, 0.0, size - 1.0, out=centred)
    if not inside.all():
        centred[~inside] = 0.0
    below = np.floor(centred)
    centred -= below
    weight = centred.astype(np.float32)
    return Taps(below.astype(np.intp), weight, inside)


def span(taps: Taps, inside: np.ndarray) -> tuple[int, int]:
    """Return the first pixel needed and the one after the last, second taps included; some are `inside`."""
    used = taps.first if inside.all() else taps.first[inside]
    return int(used.min()), int(used.max()) + 2


def sample_axes(
    planes: np.ndarray,
    holes: np.ndarray | None,
    columns: Taps,
    rows: Taps,
    *,
    nearest: bool,
    per_pixel: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Sample where columns and rows are independent.

    Args:
        planes, holes: what `span` asked for, one pixel more than exists where that reaches over the edge.
        columns, rows: taps (w * nx,) and (h * ny,), relative to `planes`.
        nearest: take the pixel that a position lies in, else interpolate.
        per_pixel: (ny, nx) samples of which each result is the mean.

    Returns:
        (B, h, w) float32, 0 where not valid, and (h, w) bool: at least half of a result's samples are data.
    """
    ny, nx = per_pixel
    values = _along_rows(_along_columns(planes, columns, nearest, nx), rows, nearest, ny)
    if holes is None and columns.inside.all() and rows.inside.all():
        values /= np.float32(nx * ny)
        return values, np.ones(values.shape[1:], dtype=bool)
    seen = _sum_groups(columns.inside.astype(np.float32), nx) * _sum_groups(rows.inside.astype(np.float32), ny)[:, None]
    if holes is None:
        return _mean(values, seen, seen >= 0.5 * nx * ny)
    lost = _along_rows(_along_columns(holes[None], columns, nearest, nx), rows, nearest, ny)[0]
    if nx * ny > 1:
        return _mean(values, seen - lost, seen - lost >= 0.5 * nx * ny)
    i, j = rows.first + rows.nearest, columns.first + columns.nearest
    data = holes[np.ix_(i, j)] == 0
    return _mean(values, seen - lost, data & (rows.inside[:, None] & columns.inside))


def _along_columns(planes: np.ndarray, taps: Taps, nearest: bool, count: int) -> np.ndarray:
    if nearest:
        sampled = np.take(planes, taps.first + taps.nearest, axis=2)
    else:
        sampled = np.take(planes, taps.first, axis=2)
        _lerp(sampled, np.take(planes, taps.first + 1, axis=2), taps.weight, out=sampled)
    if not taps.inside.all():
        sampled *= taps.inside.astype(np.float32)
    return _sum_groups(sampled, count)


def _along_rows(planes: np.ndarray, taps: Taps, nearest: bool, count: int) -> np.ndarray:
    if nearest:
        sampled = np.take(planes, taps.first + taps.nearest, axis=1)
    else:
        sampled = np.take(planes, taps.first, axis=1)
        _lerp(sampled, np.take(planes, taps.first + 1, axis=1), taps.weight[:, None], out=sampled)
    if not taps.inside.all():
        sampled *= taps.inside.astype(np.float32)[:, None]
    if count == 1:
        return sampled
    total = sampled[:, ::count].copy()
    for step in range(1, count):
        total += sampled[:, step::count]
    return total


def sample_points(
    planes: np.ndarray,
    holes: np.ndarray | None,
    columns: Taps,
    rows: Taps,
    *,
    nearest: bool,
    per_pixel: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Sample at any positions; as `sample_axes`, with taps (h * ny, w * nx) that are inside at the same places."""
    ny, nx = per_pixel
    inside = columns.inside
    all_inside = bool(inside.all())
    width = planes.shape[2]
    index = rows.first * width
    index += columns.first
    if nearest:
        index += _offset(columns, rows, width)
    values = np.empty((len(planes), *index.shape), dtype=np.float32)
    for plane, picked in zip(planes, values, strict=True):
        _pick(plane, index, columns, rows, nearest, picked)
    if not all_inside:
        values *= inside
    values = _sum_blocks(values, per_pixel)
    if holes is None and all_inside:
        values /= np.float32(nx * ny)
        return values, np.ones(values.shape[1:], dtype=bool)
    seen = _sum_blocks(inside.astype(np.float32)[None], per_pixel)[0]
    if holes is None:
        return _mean(values, seen, seen >= 0.5 * nx * ny)
    lost = np.empty(index.shape, dtype=np.float32)
    _pick(holes, index, columns, rows, nearest, lost)
    lost *= inside
    left = seen - _sum_blocks(lost[None], per_pixel)[0]
    if nx * ny > 1:
        return _mean(values, left, left >= 0.5 * nx * ny)
    if not nearest:
        index += _offset(columns, rows, width)
    return _mean(values, left, inside & (holes.ravel().take(index) == 0))


def _offset(columns: Taps, rows: Taps, width: int) -> np.ndarray:
    """Return how far beyond the first tap the pixel is that a position lies in."""
    offset = columns.nearest + rows.nearest * width
    offset[~columns.inside] = 0
    return offset


def _pick(plane: np.ndarray, index: np.ndarray, columns: Taps, rows: Taps, nearest: bool, picked: np.ndarray) -> None:
    """Write interpolated values into `picked`."""
    flat, width = plane.ravel(), plane.shape[1]
    # The indices are in range; the mode only spares `take` a copy of its output.
    if nearest:
        flat.take(index, out=picked, mode="clip")
        return
    upper = flat.take(index)
    _lerp(upper, flat[1:].take(index), columns.weight, out=upper)
    below = flat[width:]
    lower = below.take(index)
    _lerp(lower, below[1:].take(index), columns.weight, out=lower)
    _lerp(upper, lower, rows.weight, out=picked)


def _lerp(first: np.ndarray, second: np.ndarray, weight: np.ndarray, *, out: np.ndarray) -> None:
    """Write ``first + weight * (second - first)``, which is `first` exactly at weight 0; `second` is used up."""
    second -= first
    second *= weight
    np.add(first, second, out=out)


def _sum_groups(array: np.ndarray, count: int) -> np.ndarray:
    """Sum groups of neighbours along the last axis."""
    if count == 1:
        return array
    total = array[..., ::count].copy()
    for step in range(1, count):
        total += array[..., step::count]
    return total


def _sum_blocks(planes: np.ndarray, per_pixel: tuple[int, int]) -> np.ndarray:
    ny, nx = per_pixel
    if ny > 1:
        total = planes[:, ::ny].copy()
        for step in range(1, ny):
            total += planes[:, step::ny]
        planes = total
    return _sum_groups(planes, nx)


def _mean(values: np.ndarray, weight: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if valid.all():
        if (weight != 1.0).any():
            values /= weight
        return values, valid
    values /= np.where(valid, weight, np.float32(1.0))
    values *= valid
    return values, valid
