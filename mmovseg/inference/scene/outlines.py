"""Outlines of the areas of one value in a raster that does not fit into memory.

The raster is read in strips of rows. GDAL outlines the areas of a strip; those that end inside it are done. Those that
touch its lower edge wait for the strip below, and pieces of one value that meet along the edge are joined. So memory
holds one strip and the areas that are still open, and the result is that of the whole raster at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.features import shapes
from rasterio.windows import Window

_STRIP_PIXELS = 2**21
_LEAST_ROWS = 64

Outlines = tuple[np.ndarray, np.ndarray]
"""(N,) values and (N,) polygons whose corners are whole pixel numbers: x = column, y = row."""


@dataclass
class _Open:
    """An area that goes on below: its value and its pieces so far."""

    value: int
    pieces: list[Any] = field(default_factory=list)


def outlines(source: rasterio.DatasetReader, *, strip_rows: int | None = None) -> Iterator[Outlines]:
    """Yield the areas of equal value of the first band, some at a time; nodata is left out.

    Pixels belong together when they share an edge. The polygons are valid, have corners only where the outline turns,
    and do not depend on `strip_rows`.

    Args:
        source: an open raster of integers.
        strip_rows: height of a strip; None chooses it by the width.

    Raises:
        RasterioError: a block cannot be read.
    """
    height, width = source.height, source.width
    rows = strip_rows or max(_LEAST_ROWS, _STRIP_PIXELS // width)
    above: np.ndarray = np.full(width, -1)  # index into `waiting` of the area that reaches down to the edge, or -1
    waiting: list[_Open] = []
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        labels = source.read(1, window=Window(0, start, width, stop - start))
        values, pieces = _outline_strip(labels, source.nodata, start)
        del labels
        waiting, above, closed = _join(waiting, above, values, pieces, (start, stop, height))
        yield closed
    assert not waiting, "an area is open below the last row"


def _outline_strip(labels: np.ndarray, nodata: float | None, start: int) -> Outlines:
    """Outline a strip whose first row is number `start`."""
    mask = None if nodata is None else labels != nodata
    values, rings, counts = [], [], []
    for geometry, value in shapes(labels, mask=mask, connectivity=4):
        values.append(int(value))
        rings += geometry["coordinates"]
        counts.append(len(geometry["coordinates"]))
    if not values:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=object)
    corners = np.concatenate([np.asarray(ring) for ring in rings])
    corners[:, 1] += start
    ends = np.cumsum([0, *(len(ring) for ring in rings)])
    offsets = (ends, np.cumsum([0, *counts]))
    polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, corners, offsets)
    return np.asarray(values), shapely.normalize(polygons)


def _join(
    waiting: list[_Open], above: np.ndarray, values: np.ndarray, pieces: np.ndarray, rows: tuple[int, int, int]
) -> tuple[list[_Open], np.ndarray, Outlines]:
    """Join the pieces of a strip to the areas that wait for it.

    Args:
        waiting, above: as in `outlines`.
        values, pieces: of the strip.
        rows: first row, last row (exclusive) and height of the raster.

    Returns:
        `waiting` and `above` for the next strip, and what is closed.
    """
    start, stop, height = rows
    width = len(above)
    bounds = shapely.bounds(pieces)
    upper = np.flatnonzero(bounds[:, 1] == start) if start else np.empty(0, dtype=np.int64)
    lower = np.flatnonzero(bounds[:, 3] == stop) if stop < height else np.empty(0, dtype=np.int64)
    alone = np.ones(len(pieces), dtype=bool)
    alone[upper] = alone[lower] = False

    edge = np.union1d(upper, lower)
    groups = _Groups(len(waiting) + len(edge))
    below = _owners(pieces, upper, start, width)
    met = (above >= 0) & (below >= 0)
    pairs = np.unique(np.stack([above[met], below[met]]), axis=1)
    for area, piece in pairs.T:
        if waiting[area].value == values[piece]:
            groups.unite(int(area), len(waiting) + int(np.searchsorted(edge, piece)))

    merged: dict[int, _Open] = {}
    for index, area in enumerate(waiting):
        _gather(merged, groups.root(index), area)
    for index, piece in enumerate(edge, len(waiting)):
        _gather(merged, groups.root(index), _Open(int(values[piece]), [pieces[piece]]))

    numbers: dict[int, int] = {}  # root -> index among those that wait for the next strip
    next_above = _owners(pieces, lower, stop, width)
    renumber = np.full(len(pieces) + 1, -1)  # the last entry is for columns without an owner
    for piece in lower:
        root = groups.root(len(waiting) + int(np.searchsorted(edge, piece)))
        renumber[piece] = numbers.setdefault(root, len(numbers))
    still_open = [merged[root] for root in numbers]
    closed = [area for root, area in merged.items() if root not in numbers]
    closed_values = np.concatenate([values[alone], np.array([area.value for area in closed], dtype=np.int64)])
    closed_pieces = np.concatenate([pieces[alone], _dissolve(closed)])
    return still_open, renumber[next_above], (closed_values, closed_pieces)


def _gather(merged: dict[int, _Open], root: int, area: _Open) -> None:
    """Add an area to its group; the shorter list goes into the longer one, so that a large area is not copied often."""
    known = merged.get(root)
    if known is None:
        merged[root] = area
    else:
        short, long = sorted((known.pieces, area.pieces), key=len)
        long.extend(short)
        known.pieces = long


def _owners(pieces: np.ndarray, candidates: np.ndarray, row: int, width: int) -> np.ndarray:
    """Return (width,) the index of the piece that has an edge along the line y = `row` at each column, or -1."""
    owners = np.full(width, -1)
    corners, ring = shapely.get_coordinates(shapely.get_exterior_ring(pieces[candidates]), return_index=True)
    along = (ring[1:] == ring[:-1]) & (corners[1:, 1] == row) & (corners[:-1, 1] == row)
    first = np.minimum(corners[:-1, 0], corners[1:, 0])[along].astype(np.int64)
    length = np.abs(corners[1:, 0] - corners[:-1, 0])[along].astype(np.int64)
    columns = np.repeat(first - (np.cumsum(length) - length), length) + np.arange(length.sum())
    owners[columns] = np.repeat(candidates[ring[1:][along]], length)
    return owners


def _dissolve(areas: list[_Open]) -> np.ndarray:
    """Join the pieces of each area to one polygon."""
    if not areas:
        return np.empty(0, dtype=object)
    single = [area.pieces[0] if len(area.pieces) == 1 else shapely.union_all(area.pieces) for area in areas]
    # The second time for the order of the holes, which hangs on the number of their corners.
    return shapely.normalize(drop_straight_corners(shapely.normalize(np.array(single, dtype=object))))


def drop_straight_corners(polygons: np.ndarray) -> np.ndarray:
    """Remove the corners of normalised polygons at which the outline goes straight on.

    A normalised ring starts at its leftmost lowest corner, which is never such a one.
    """
    _, corners, (rings, parts) = shapely.to_ragged_array(polygons)
    step = np.diff(corners, axis=0)
    keep = np.ones(len(corners), dtype=bool)
    keep[1:-1] = step[:-1, 0] * step[1:, 1] != step[:-1, 1] * step[1:, 0]
    keep[rings[:-1]] = keep[rings[1:] - 1] = True
    kept = np.concatenate([[0], np.cumsum(keep)])
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, corners[keep], (kept[rings], parts))


class _Groups:
    """Which of some numbered things belong together."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def unite(self, first: int, second: int) -> None:
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low
