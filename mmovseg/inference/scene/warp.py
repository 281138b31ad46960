"""Which pixel of a raster lies under a pixel of the map: exact for one coordinate system, anchored nodes between two.

Between two coordinate systems the exact position is computed at the nodes of a lattice that starts at the corner of
the map, and interpolated bilinearly between them. The spacing is chosen once for a pair so that the error stays below
`TOLERANCE_PX`. Since the lattice belongs to the map, a position does not depend on the window that it is asked for in.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from typing import Literal

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from mmovseg.errors import UserError
from mmovseg.inference.grid import GRID_TOLERANCE_PX, TRANSFORM_ERRORS, Grid, compose, map_point

TOLERANCE_PX = 0.01
_SPACINGS_PX = (64, 32, 16, 8, 4, 2, 1)
_BLOCK_CELLS = 32
_KEPT_BLOCKS = 1024  # 17 kB each
_TURN_DEG = 360.0

MapKind = Literal["shift", "axes", "affine", "curved"]


class PixelMap:
    """Positions of one grid in pixels of another.

    Positions are continuous: column 0 is the left edge of the first pixel, its middle is 0.5.

    kind: ``shift``: both lie on one lattice, whole pixels apart. ``axes``: columns depend on columns and rows on rows.
        ``affine``: turned against each other. ``curved``: of two coordinate systems.

    Args:
        target: the grid positions are given in.
        source: the grid positions are wanted in.

    Raises:
        UserError: the coordinate systems cannot be converted into each other.
    """

    def __init__(self, target: Grid, source: Grid) -> None:
        self.target, self.source = target, source
        self.kind: MapKind
        if target.crs == source.crs or target.crs is None or source.crs is None:
            turns = _turns_between(target, source)
            moved = compose(Affine.translation(turns * _TURN_DEG, 0.0), target.transform)
            self.affine = compose(~source.transform, moved)
            self.kind = self._settle()
        else:
            self.kind = "curved"
            self._nodes = _Nodes(target, source)

    def _settle(self) -> MapKind:
        """Clear rounding from the affine map and say which kind it is."""
        a = self.affine
        height, width = self.target.height, self.target.width
        shift = (round(a.c), round(a.f))
        corners = [(0, 0), (width, 0), (0, height), (width, height)]
        mapped = [map_point(a, *corner) for corner in corners]
        off = max(
            max(abs(x - column - shift[0]), abs(y - row - shift[1]))
            for (x, y), (column, row) in zip(mapped, corners, strict=True)
        )
        if off <= GRID_TOLERANCE_PX:
            self.affine = Affine(1.0, 0.0, shift[0], 0.0, 1.0, shift[1])
            return "shift"
        if max(abs(a.b) * height, abs(a.d) * width) <= GRID_TOLERANCE_PX / 10:
            self.affine = Affine(a.a, 0.0, a.c, 0.0, a.e, a.f)
            return "axes"
        return "affine"

    @property
    def is_separable(self) -> bool:
        """Whether `axes` holds."""
        return self.kind in ("shift", "axes")

    def axes(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns (w,) and rows (h,) in the source of columns (w,) and rows (h,) of the target."""
        return self.affine.a * x + self.affine.c, self.affine.e * y + self.affine.f

    def points(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return columns (h, w) and rows (h, w) in the source of the lattice of columns (w,) and rows (h,).

        Columns and rows ascend. NaN where a position has no counterpart.
        """
        if self.kind == "curved":
            return self._nodes.interpolate(x, y)
        column, row = map_point(self.affine, x[None, :], y[:, None])
        return column, row

    def jacobian(self) -> np.ndarray | None:
        """Return (2, 2): how (column, row) in the source change for a step by one column, one row of the target.

        Measured in the middle of what the two share; None when they share nothing.
        """
        if self.kind != "curved":
            a = self.affine
            return np.array([[a.a, a.b], [a.d, a.e]])
        x, y, inside = self._probe()
        if not inside.any():
            return None
        column, row = float(np.median(x[inside])), float(np.median(y[inside]))
        columns, rows = self._nodes.exact(
            np.array([column - 0.5, column + 0.5, column, column]), np.array([row, row, row - 0.5, row + 0.5])
        )
        return np.array([[columns[1] - columns[0], columns[3] - columns[2]], [rows[1] - rows[0], rows[3] - rows[2]]])

    def overlap_share(self, *, probes: int = 64) -> float:
        """Return the share of the target that the source covers, 0..1, from a lattice of `probes` x `probes`.

        What is smaller than the lattice's spacing is looked for from the side of the source, so that 0 means none.
        """
        inside = self._probe(probes)[2]
        if inside.any():
            return float(inside.mean())
        found = PixelMap(self.source, self.target)._probe(probes)[2]
        if not found.any():
            return 0.0
        jacobian = self.jacobian_of_source()
        covered = found.mean() * self.source.height * self.source.width * jacobian
        return float(np.clip(covered / (self.target.height * self.target.width), 1e-9, 1.0))

    def jacobian_of_source(self) -> float:
        """Return how many target pixels a source pixel covers, measured in the middle of what they share."""
        found = PixelMap(self.source, self.target).jacobian()
        return abs(float(np.linalg.det(found))) if found is not None else 0.0

    def _probe(self, probes: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        middle = (np.arange(probes) + 0.5) / probes
        x, y = (v.ravel() for v in np.meshgrid(middle * self.target.width, middle * self.target.height))
        column, row = map_point(self.affine, x, y) if self.kind != "curved" else self._nodes.exact(x, y)
        inside = (column >= 0) & (column < self.source.width) & (row >= 0) & (row < self.source.height)
        return x, y, inside


class _Nodes:
    """The nodes of a curved map, computed block by block when they are needed."""

    def __init__(self, target: Grid, source: Grid) -> None:
        assert target.crs is not None and source.crs is not None
        self.target, self.source = target, source
        self._to_source = ~source.transform
        self._centre = _centre(source)[0] if source.crs.is_geographic else None
        _check_convertible(target, source)
        self._blocks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self.spacing = self._choose_spacing()

    def exact(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the position of every point (n,), NaN where there is none."""
        assert self.target.crs is not None and self.source.crs is not None
        east, north = map_point(self.target.transform, x, y)
        east, north = _convert(self.target.crs, self.source.crs, east, north)
        if self._centre is not None:
            east = east + _TURN_DEG * np.rint((self._centre - east) / _TURN_DEG)
        column, row = map_point(self._to_source, east, north)
        return column, row

    def interpolate(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PixelMap.points`."""
        columns, rows = x / self.spacing, y / self.spacing
        left, top = int(math.floor(columns[0])), int(math.floor(rows[0]))
        right, bottom = int(math.floor(columns[-1])) + 2, int(math.floor(rows[-1])) + 2
        nodes = self._collect(top, bottom, left, right)
        cell_x, cell_y = np.floor(columns), np.floor(rows)
        fraction_x, fraction_y = columns - cell_x, (rows - cell_y)[:, None]
        i, j = cell_y.astype(np.intp) - top, cell_x.astype(np.intp) - left
        # Rows between the same nodes follow each other.
        starts = [0, *(np.flatnonzero(np.diff(i)) + 1).tolist(), len(i)]
        answer = np.empty((2, len(y), len(x)))
        for nodes_of_axis, positions in zip(nodes, answer, strict=True):
            first = nodes_of_axis[:, j]
            across = first + fraction_x * (nodes_of_axis[:, j + 1] - first)
            for start, stop in pairwise(starts):
                upper = across[i[start]]
                np.multiply(fraction_y[start:stop], across[i[start] + 1] - upper, out=positions[start:stop])
                positions[start:stop] += upper
        return answer[0], answer[1]

    def _collect(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Return (2, bottom - top, right - left): column and row of the nodes of a window."""
        nodes = np.empty((2, bottom - top, right - left))
        for block_row in range(top // _BLOCK_CELLS, (bottom - 1) // _BLOCK_CELLS + 1):
            for block_column in range(left // _BLOCK_CELLS, (right - 1) // _BLOCK_CELLS + 1):
                block = self._block(block_row, block_column)
                row0, column0 = block_row * _BLOCK_CELLS, block_column * _BLOCK_CELLS
                row1, column1 = row0 + _BLOCK_CELLS, column0 + _BLOCK_CELLS
                y0, y1, x0, x1 = max(row0, top), min(row1, bottom), max(column0, left), min(column1, right)
                nodes[:, y0 - top : y1 - top, x0 - left : x1 - left] = block[
                    :, y0 - row0 : y1 - row0, x0 - column0 : x1 - column0
                ]
        return nodes

    def _block(self, row: int, column: int) -> np.ndarray:
        block = self._blocks.get((row, column))
        if block is None:
            steps = np.arange(_BLOCK_CELLS, dtype=np.float64)
            x, y = np.meshgrid(
                (column * _BLOCK_CELLS + steps) * self.spacing, (row * _BLOCK_CELLS + steps) * self.spacing
            )
            block = np.stack([v.reshape(x.shape) for v in self.exact(x.ravel(), y.ravel())])
            self._blocks[row, column] = block
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end((row, column))
        return block

    def _choose_spacing(self) -> int:
        return next((spacing for spacing in _SPACINGS_PX if self._error(spacing) <= TOLERANCE_PX), _SPACINGS_PX[-1])

    def _error(self, spacing: int) -> float:
        """Return the largest error in source pixels in the middle of some cells and of their sides."""
        rows, columns = (
            np.unique(np.linspace(0, max(size - spacing, 0), 7) // spacing * spacing)
            for size in (self.target.height, self.target.width)
        )
        corner_x, corner_y = (v.ravel() for v in np.meshgrid(columns, rows))
        offsets = np.array([(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5), (0.5, 0), (0, 0.5)]) * spacing
        x, y = corner_x + offsets[:, :1], corner_y + offsets[:, 1:]
        exact = np.stack([v.reshape(x.shape) for v in self.exact(x.ravel(), y.ravel())])
        corners = exact[:, :4]
        middles = np.stack([corners.mean(axis=1), corners[:, :2].mean(axis=1), corners[:, ::2].mean(axis=1)], axis=1)
        off = np.abs(middles - exact[:, 4:])
        off = off[np.isfinite(off)]
        return float(off.max()) if off.size else 0.0


def _check_convertible(target: Grid, source: Grid) -> None:
    assert target.crs is not None and source.crs is not None
    x, y = _centre(target)
    try:
        transform_points(target.crs, source.crs, [x], [y])
    except TRANSFORM_ERRORS as error:
        if "outside" in str(error).lower() or "invalid" in str(error).lower():
            return  # that point, not the systems
        raise UserError(
            f"the coordinate systems of '{target.source}' ({_spell(target.crs)}) and '{source.source}' "
            f"({_spell(source.crs)}) cannot be converted into each other"
        ) from error


def _spell(crs: CRS) -> str:
    text = str(crs)
    return text if len(text) <= 80 else text[:77] + "..."


def _convert(target: CRS, source: CRS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert points; those without a counterpart become NaN (the library refuses a whole list for one of them)."""
    try:
        east, north = (np.asarray(v, dtype=np.float64) for v in transform_points(target, source, x, y)[:2])
    except TRANSFORM_ERRORS:
        if len(x) == 1:
            return np.array([np.nan]), np.array([np.nan])
        half = len(x) // 2
        parts = [_convert(target, source, x[part], y[part]) for part in (slice(None, half), slice(half, None))]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    lost = ~(np.isfinite(east) & np.isfinite(north))
    return np.where(lost, np.nan, east), np.where(lost, np.nan, north)


def _centre(grid: Grid) -> tuple[float, float]:
    x, y = map_point(grid.transform, grid.width / 2.0, grid.height / 2.0)
    return float(x), float(y)


def _turns_between(target: Grid, source: Grid) -> int:
    """Return by how many whole turns the longitudes of two rasters differ (0..360 against -180..180)."""
    if target.crs is None or not target.crs.is_geographic:
        return 0
    return round((_centre(source)[0] - _centre(target)[0]) / _TURN_DEG)
