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
    weight: float32 of the second. nearest: 0 or 1, which of them the position lies in. inside: of the raster.
    """

    first: np.ndarray
    weight: np.ndarray
    nearest: np.ndarray
    inside: np.ndarray


def find_taps(position: np.ndarray, size: int) -> Taps:
    """Find the pixels around positions.

    Args:
        position: any shape, in pixels, 0 = outer edge of the first pixel; NaN = nowhere.
        size: pixels along the axis.

    Returns:
        Arrays of the same shape. Positions in the outer half of an edge pixel have its value; those outside point at
        pixel 0 with `inside` False.
    """
    inside = (position >= 0.0) & (position < size)
    centred = np.where(inside, np.clip(position - 0.5, 0.0, size - 1.0), 0.0)
    below = np.floor(centred)
    weight = centred - below
    return Taps(below.astype(np.intp), weight.astype(np.float32), (weight >= 0.5).astype(np.intp), inside)


def span(taps: Taps) -> tuple[int, int] | None:
    """Return the first pixel that is needed and the one after the last, the second taps included; None if none."""
    used = taps.first[taps.inside]
    return (int(used.min()), int(used.max()) + 2) if used.size else None


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
        sampled += taps.weight * (np.take(planes, taps.first + 1, axis=2) - sampled)
    if not taps.inside.all():
        sampled *= taps.inside.astype(np.float32)
    return _sum_groups(sampled, count)


def _along_rows(planes: np.ndarray, taps: Taps, nearest: bool, count: int) -> np.ndarray:
    if nearest:
        sampled = np.take(planes, taps.first + taps.nearest, axis=1)
    else:
        sampled = np.take(planes, taps.first, axis=1)
        sampled += taps.weight[:, None] * (np.take(planes, taps.first + 1, axis=1) - sampled)
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
    """Sample at any positions; as `sample_axes`, with taps (h * ny, w * nx)."""
    ny, nx = per_pixel
    inside = columns.inside & rows.inside
    width = planes.shape[2]
    index = rows.first * width
    index += columns.first
    if not inside.all():
        index[~inside] = 0
    offset = columns.nearest + rows.nearest * width
    if nearest:
        index += np.where(inside, offset, 0)
    values = np.stack([_pick(plane, index, columns, rows, nearest) for plane in planes])
    if not inside.all():
        values *= inside
    values = _sum_blocks(values, per_pixel)
    seen = _sum_blocks(inside.astype(np.float32)[None], per_pixel)[0]
    if holes is None:
        return _mean(values, seen, seen >= 0.5 * nx * ny)
    lost = _pick(holes, index, columns, rows, nearest) * inside
    left = seen - _sum_blocks(lost[None], per_pixel)[0]
    if nx * ny > 1:
        return _mean(values, left, left >= 0.5 * nx * ny)
    if not nearest:
        index = index + np.where(inside, offset, 0)
    return _mean(values, left, inside & (holes.ravel().take(index) == 0))


def _pick(plane: np.ndarray, index: np.ndarray, columns: Taps, rows: Taps, nearest: bool) -> np.ndarray:
    flat, width = plane.ravel(), plane.shape[1]
    first = flat.take(index)
    if nearest:
        return first
    first += columns.weight * (flat[1:].take(index) - first)
    below = flat[width:]
    second = below.take(index)
    second += columns.weight * (below[1:].take(index) - second)
    second -= first
    second *= rows.weight
    second += first
    return second


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
