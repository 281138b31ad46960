"""Where the windows of a scene lie, how much each says about a pixel, and which rows are finished together.

Windows lie on a lattice of the map, not of the file: two rasters cut from one mosaic get the same windows where they
overlap, so their maps agree there. At the edge of a raster windows move inward, so that each is full of data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rasterio.transform import Affine

from mmovseg.errors import UserError

Anchor = Literal["map", "scene"]
ANCHORS: tuple[Anchor, ...] = ("map", "scene")

_ROUND_UP = 0.3819
"""Added before rounding down to whole pixels. Origins often lie at halves or quarters of a pixel from the map's, where
ordinary rounding would go by the last bit; they never lie near this fraction."""


@dataclass(frozen=True)
class Axis:
    """Windows along one side of a scene, pixels of the output.

    size: of the scene. tile: side of a window, at most `size`. starts: first pixel of each, ascending. overlap: of two
    neighbours on the lattice (more at the edges). margin: at an inner edge so many pixels are not used at all.
    """

    size: int
    tile: int
    starts: tuple[int, ...]
    overlap: int
    margin: int

    def weights(self, index: int) -> np.ndarray:
        """Return (tile,) float32 in [0, 1]: how much window `index` says about each of its pixels along this axis.

        0 within the margin of an inner edge, then a squared sine up to 1 over the rest of the overlap. The weights of
        two neighbours on the lattice add up to 1. The edge of the scene has no ramp.
        """
        start = self.starts[index]
        ramp = _ramp(self.overlap, self.margin)
        weights = np.ones(self.tile, dtype=np.float32)
        if start > 0:
            weights[: self.overlap] *= ramp
        if start + self.tile < self.size:
            weights[self.tile - self.overlap :] *= ramp[::-1]
        return weights

    def covering(self, first: int, last: int) -> range:
        """Return the indices of the windows that touch the pixels ``first <= pixel < last``."""
        touching = [i for i, start in enumerate(self.starts) if start < last and start + self.tile > first]
        return range(touching[0], touching[-1] + 1)


def make_axis(size: int, *, tile: int, overlap: int, margin: int, phase: int = 0) -> Axis:
    """Lay windows along one side.

    Args:
        size: of the scene, pixels.
        tile: side of a window; a smaller scene gets one window of its own size.
        overlap: of two neighbours, at most half a window, so that no pixel lies in three of the lattice.
        margin: pixels at an inner edge that are not used; twice this must leave something of the overlap.
        phase: pixel of the scene, possibly negative, at which a window of the lattice starts.

    Raises:
        UserError: the numbers leave a gap between windows.
    """
    check_overlap(tile, overlap, margin)
    if size <= tile:
        return Axis(size, size, (0,), 0, 0)
    stride = tile - overlap
    first = phase % stride - stride
    last = size - tile
    # An edge window may not start within a few pixels of its neighbour's: that costs a window and says nothing new, but
    # it keeps the rule simple and the interior independent of the cut.
    starts = sorted({min(max(start, 0), last) for start in range(first, size, stride) if start + tile > 0})
    return Axis(size, tile, tuple(starts), overlap, margin)


def check_overlap(tile: int, overlap: int, margin: int) -> None:
    """Raise `UserError` unless windows of this size can be blended."""
    if tile < 1:
        raise UserError(f"the tile is {tile} pixels of the output, it must be at least 1")
    if not 0 <= overlap <= tile // 2:
        raise UserError(f"the overlap is {overlap} pixels, it must be 0 to {tile // 2}, half of the tile of {tile}")
    if margin < 0 or (margin > 0 and 2 * margin >= overlap):
        raise UserError(f"the margin is {margin} pixels, it must be 0, or less than half of the overlap of {overlap}")


def lattice_phase(transform: Affine, stride: int, anchor: Anchor) -> tuple[int, int]:
    """Return the row and the column of the scene at which the lattice starts, each in 0..stride-1.

    Args:
        transform: of the output grid. A turned grid has no rows of the map; it is anchored at its own corner.
        stride: of the lattice, pixels.
        anchor: ``map``, or ``scene`` for the corner of the raster whatever its place.
    """
    if anchor == "scene" or transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        return 0, 0
    row, column = (math.floor(value + _ROUND_UP) for value in (transform.f / transform.e, transform.c / transform.a))
    return -row % stride, -column % stride


@dataclass(frozen=True)
class Tiling:
    """Windows of a scene: every window row crossed with every window column."""

    rows: Axis
    columns: Axis
    batch: int
    parts: tuple[tuple[int, int], ...]

    @property
    def num_windows(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def batches(self) -> list[range]:
        """Return the window columns that are predicted together, the same in every window row."""
        count = len(self.columns.starts)
        return [range(first, min(first + self.batch, count)) for first in range(0, count, self.batch)]


def make_tiling(
    height: int,
    width: int,
    *,
    tile: int,
    overlap: int,
    margin: int,
    batch: int,
    phase: tuple[int, int] = (0, 0),
    part_rows: int = 256,
) -> Tiling:
    """Lay windows over a scene.

    Args:
        height, width: of the scene, pixels.
        tile, overlap, margin: see `make_axis`.
        batch: windows predicted together.
        phase: see `lattice_phase`.
        part_rows: rows that are finished, and can be resumed, together: at least so many, ending where a window row
            starts.
    """
    rows = make_axis(height, tile=tile, overlap=overlap, margin=margin, phase=phase[0])
    columns = make_axis(width, tile=tile, overlap=overlap, margin=margin, phase=phase[1])
    return Tiling(rows, columns, batch, _parts(rows, part_rows))


def _parts(rows: Axis, least: int) -> tuple[tuple[int, int], ...]:
    """Cut the scene at starts of window rows, where everything above is finished."""
    cuts = [0]
    for start in rows.starts[1:]:
        if start - cuts[-1] >= least:
            cuts.append(start)
    cuts.append(rows.size)
    return tuple(zip(cuts[:-1], cuts[1:], strict=True))


def consecutive(indices: Sequence[int]) -> list[range]:
    """Return ascending indices as runs without gaps."""
    runs: list[range] = []
    for index in indices:
        if runs and runs[-1].stop == index:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return runs


def share(indices: Sequence[int], *, rank: int, world_size: int) -> list[int]:
    """Return the part of one process: neighbours stay together, since each cut costs a window row twice."""
    bounds = [round(len(indices) * number / world_size) for number in (rank, rank + 1)]
    return list(indices[bounds[0] : bounds[1]])


def _ramp(overlap: int, margin: int) -> np.ndarray:
    """Return (overlap,) float32 rising from 0 to 1; with its mirror image it adds up to 1."""
    length = overlap - 2 * margin
    place = (np.arange(overlap) + 0.5 - margin) / max(length, 1)
    return (np.sin(0.5 * np.pi * np.clip(place, 0.0, 1.0)) ** 2).astype(np.float32)
