"""Where rasters lie: their grids, whether two are one, and how large a pixel is on the ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from mmovseg.data.raster import Raster
from mmovseg.errors import UserError

GRID_TOLERANCE_PX = 0.01
"""Two grids whose corners are no farther apart count as one."""

TRANSFORM_ERRORS = (CPLE_BaseError, RasterioError, CRSError)
"""What the conversion of points raises; the first is not among the public errors of rasterio."""

_WGS84 = CRS.from_epsg(4326)
_WGS84_MAJOR_M, _WGS84_ECCENTRICITY2 = 6_378_137.0, 6.69437999014e-3
_SCALE_TOLERANCE = 0.01  # UTM, Lambert and their like differ less from the ground; web Mercator doubles at 60 degrees


@dataclass(frozen=True)
class Grid:
    """Where a raster lies: coordinate system, transform, height and width in pixels, and the file that says so."""

    crs: CRS | None
    transform: Affine
    height: int
    width: int
    source: str

    def gsd_m(self) -> float | None:
        """Return the metres on the ground that a pixel in the middle spans, the geometric mean of both axes.

        In a projected system whose scale is true to 1 % it is the length in the plane of the map (10 for Sentinel-2,
        not 9.998). Elsewhere, in degrees or in web Mercator, it is measured on the WGS 84 ellipsoid.

        Returns:
            None without a coordinate system, or where positions have no longitude and latitude.
        """
        if self.crs is None or not self.crs:
            return None
        ground = self._ground_gsd()
        if self.crs.is_projected:
            try:
                nominal = math.sqrt(abs(self.transform.determinant)) * float(self.crs.linear_units_factor[1])
            except CRSError:
                return ground
            if ground is None or abs(nominal / ground - 1.0) <= _SCALE_TOLERANCE:
                return nominal
        return ground

    def _ground_gsd(self) -> float | None:
        row, column = self.height / 2.0, self.width / 2.0
        centre = [(column, row), (column + 1.0, row), (column, row + 1.0)]
        x, y = zip(*(map_point(self.transform, *point) for point in centre), strict=True)
        area = ground_area(self.crs, x, y)
        return None if area is None else math.sqrt(area)

    def bounds_lonlat(self) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees of WGS 84, None where that is unknown."""
        if self.crs is None or not self.crs:
            return None
        steps = np.linspace(0.0, 1.0, 9)
        columns, rows = (np.concatenate(side) for side in _outline(steps * self.width, steps * self.height))
        x, y = map_point(self.transform, columns, rows)
        try:
            longitude, latitude = transform_points(self.crs, _WGS84, x, y)[:2]
        except TRANSFORM_ERRORS:
            return None
        values = np.array([min(longitude), min(latitude), max(longitude), max(latitude)])
        return tuple(values.tolist()) if np.isfinite(values).all() else None


def ground_area(crs: CRS, x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return the square metres on the WGS 84 ellipsoid of the parallelogram that three places span.

    Args:
        crs: of the places.
        x, y: of a corner and of the two next to it, near enough for the ground between them to be flat.

    Returns:
        None where a place has no longitude and latitude, or the three span nothing.
    """
    try:
        longitude, latitude = (np.deg2rad(v) for v in transform_points(crs, _WGS84, x, y)[:2])
    except TRANSFORM_ERRORS:
        return None
    if not (np.isfinite(longitude).all() and np.isfinite(latitude).all()):
        return None
    # Places in space, unlike angles, know neither the date line nor the poles.
    normal = _WGS84_MAJOR_M / np.sqrt(1.0 - _WGS84_ECCENTRICITY2 * np.sin(latitude) ** 2)
    across = normal * np.cos(latitude)
    height = (1.0 - _WGS84_ECCENTRICITY2) * normal * np.sin(latitude)
    places = np.stack([across * np.cos(longitude), across * np.sin(longitude), height], axis=1)
    area = float(np.linalg.norm(np.cross(places[1] - places[0], places[2] - places[0])))
    return area if area > 0 else None


def _outline(columns: np.ndarray, rows: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    left, right = np.full_like(rows, columns[0]), np.full_like(rows, columns[-1])
    top, bottom = np.full_like(columns, rows[0]), np.full_like(columns, rows[-1])
    return [columns, columns, left, right], [top, bottom, rows, rows]


def read_grid(path: str | Path) -> Grid:
    """Read where a raster lies.

    Raises:
        UserError: the file cannot be opened.
    """
    with Raster(path, "input") as raster:
        return grid_of(raster.source, str(path))


def grid_of(source: rasterio.DatasetReader, path: str) -> Grid:
    """Return where an open raster lies."""
    return Grid(source.crs, source.transform, source.height, source.width, path)


def common_grid(paths: Sequence[str | Path]) -> Grid:
    """Return the grid that all rasters share.

    Raises:
        UserError: no raster, or two that differ in coordinate system, size or place by more than a hundredth of a
            pixel; the sentence names both files and what differs.
    """
    if not paths:
        raise UserError("there is no raster to map; give at least one of the later date")
    grids = [read_grid(path) for path in paths]
    first = grids[0]
    for grid in grids[1:]:
        difference = grid_difference(first, grid)
        if difference:
            raise UserError(
                f"'{first.source}' and '{grid.source}' do not lie on one grid ({difference}); resample one to the other"
            )
    return first


def grid_difference(first: Grid, second: Grid) -> str:
    """Return how two grids differ in a few words; empty when they are one."""
    if (first.height, first.width) != (second.height, second.width):
        return f"{first.height}x{first.width} against {second.height}x{second.width} pixels"
    if first.crs != second.crs:
        return f"{first.crs or 'no coordinate system'} against {second.crs or 'no coordinate system'}"
    corners = [(0, 0), (first.width, 0), (0, first.height), (first.width, first.height)]
    shifts = []
    for corner in corners:
        column, row = map_point(~first.transform, *map_point(second.transform, *corner))
        shifts.append(max(abs(column - corner[0]), abs(row - corner[1])))
    return f"{max(shifts):.2f} pixels apart" if max(shifts) > GRID_TOLERANCE_PX else ""


def compose(outer: Affine, inner: Affine) -> Affine:
    """Return the transform that applies `inner`, then `outer`."""
    x, y = map_point(outer, inner.c, inner.f)
    return Affine(
        outer.a * inner.a + outer.b * inner.d,
        outer.a * inner.b + outer.b * inner.e,
        x,
        outer.d * inner.a + outer.e * inner.d,
        outer.d * inner.b + outer.e * inner.e,
        y,
    )


def map_point(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Map a point, or arrays of them; spelled out because releases of affine disagree on the operator."""
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f
