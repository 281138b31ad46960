"""Whether rasters say where they lie, and how one is laid over the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmovseg.data.raster import Raster
from mmovseg.errors import UserError
from mmovseg.inference.grid import Grid, grid_of, map_point
from mmovseg.inference.scene.sources import Placed
from mmovseg.inference.scene.warp import PixelMap

_LARGEST_LATITUDE_DEG = 90.0 + 1e-6
_LARGEST_LONGITUDE_DEG = 540.0
_MOST_RATIO = 1000


def placed_grid(raster: Raster) -> Grid:
    """Return the grid of an open raster.

    Raises:
        UserError: its transform is degenerate, it is placed by control points or a sensor model only, it has a
            coordinate system and no position, or positions beyond the poles.
    """
    source = raster.source
    grid = grid_of(source, raster.path)
    name = f"{raster.role} raster '{raster.path}'"
    numbers = list(grid.transform)[:6]
    if not all(math.isfinite(number) for number in numbers) or abs(grid.transform.determinant) < 1e-300:
        spelled = ", ".join(f"{number:g}" for number in numbers)
        raise UserError(f"{name} has the transform ({spelled}), whose pixels have no area; georeference it again")
    if grid.transform.is_identity:
        _refuse_unwarped(raster, name)
        if grid.crs:
            raise UserError(
                f"{name} names the coordinate system {grid.crs} but no position in it; set it with gdal_edit.py -a_ullr"
            )
    if grid.crs and grid.crs.is_geographic:
        _check_degrees(grid, name)
    return grid


def _refuse_unwarped(raster: Raster, name: str) -> None:
    if 0 < len(raster.source.gcps[0]) < 3:
        raise UserError(f"{name} gives a position but no size of its pixels; set both with gdal_edit.py -a_ullr")
    if raster.source.gcps[0]:
        raise UserError(
            f"{name} is placed by {len(raster.source.gcps[0])} ground control points only; warp it first, for example: "
            "gdalwarp -tps -r bilinear in.tif out.tif"
        )
    if raster.source.rpcs is not None:
        raise UserError(
            f"{name} is placed by a sensor model (RPC) only; orthorectify it first, for example: "
            "gdalwarp -rpc -to RPC_DEM=dem.tif in.tif out.tif"
        )


def _check_degrees(grid: Grid, name: str) -> None:
    corners = [
        map_point(grid.transform, column, row)
        for column in (0.0, float(grid.width))
        for row in (0.0, float(grid.height))
    ]
    longitude = max((x for x, _ in corners), key=abs)
    latitude = max((y for _, y in corners), key=abs)
    if abs(latitude) > _LARGEST_LATITUDE_DEG or abs(longitude) > _LARGEST_LONGITUDE_DEG:
        raise UserError(
            f"{name} claims {grid.crs}, which counts degrees, but reaches longitude {longitude:g} and latitude "
            f"{latitude:g}; its coordinate system is another one"
        )


def check_together(grid: Grid, source: Placed, *, warnings: list[str]) -> PixelMap:
    """Lay a raster over the map.

    Args:
        grid: of the map.
        source: the raster.
        warnings: gets a sentence where pixels are matched without coordinates.

    Raises:
        UserError: one has a coordinate system and the other not, two without differ in size or place, the systems
            cannot be converted, or the two do not overlap.
    """
    other = placed_grid(source.raster)
    if other.source == grid.source:
        return PixelMap(grid, grid)
    if bool(grid.crs) != bool(other.crs):
        without, having = (grid, other) if not grid.crs else (other, grid)
        raise UserError(
            f"'{without.source}' has no coordinate system but '{having.source}' has ({having.crs}), so they cannot be "
            "laid over each other; add it with gdal_edit.py -a_srs"
        )
    if not grid.crs:
        return _pixel_by_pixel(grid, other, warnings)
    pixel_map = PixelMap(grid, other)
    if pixel_map.overlap_share() == 0.0:
        raise UserError(
            f"'{grid.source}' ({_spell_bounds(grid)}) and '{other.source}' ({_spell_bounds(other)}) do not overlap"
        )
    _check_sizes(grid, other, pixel_map)
    return pixel_map


def _check_sizes(grid: Grid, other: Grid, pixel_map: PixelMap) -> None:
    """Refuse pixels that cannot be of one scene, such as those of a mistyped transform."""
    jacobian = pixel_map.jacobian()
    down, across = (1.0, 1.0) if jacobian is None else np.abs(jacobian).max(axis=0).tolist()
    crossed = math.sqrt(down) * math.sqrt(across)
    if not 1 / _MOST_RATIO <= crossed <= _MOST_RATIO:
        spans = 1 / max(crossed, 1e-300)
        raise UserError(
            f"a pixel of '{other.source}' spans {spans:.4g} pixels of the map, which has those of '{grid.source}'; at "
            f"most {_MOST_RATIO} times larger or smaller ones can be laid over each other"
        )


def _pixel_by_pixel(grid: Grid, other: Grid, warnings: list[str]) -> PixelMap:
    names = f"'{grid.source}' and '{other.source}'"
    if (grid.height, grid.width) != (other.height, other.width):
        raise UserError(
            f"{names} have no coordinate system and differ in size ({grid.height}x{grid.width} against "
            f"{other.height}x{other.width} pixels), so they cannot be laid over each other; georeference them first"
        )
    if not (grid.transform.is_identity or other.transform.is_identity):
        pixel_map = PixelMap(grid, other)
        if pixel_map.kind != "shift" or pixel_map.affine != pixel_map.affine.identity():
            raise UserError(f"{names} have no coordinate system and lie in different places; georeference them first")
    warnings.append(f"{names} have no coordinate system; they are laid over each other pixel by pixel")
    return PixelMap(grid, grid)


def _spell_bounds(grid: Grid) -> str:
    bounds = grid.bounds_lonlat()
    if bounds is None:
        corners = [map_point(grid.transform, *corner) for corner in ((0, 0), (grid.width, grid.height))]
        spelled = [f"{min(v):.6g} to {max(v):.6g}" for v in zip(*corners, strict=True)]
        return f"x {spelled[0]}, y {spelled[1]} in {grid.crs}"
    west, south, east, north = bounds
    return f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"


def raster_facts(source: Placed, pixel_map: PixelMap) -> dict[str, Any]:
    """Return what a report says about a raster; json-able."""
    raster = source.raster
    grid = pixel_map.source
    jacobian = pixel_map.jacobian()
    facts: dict[str, Any] = {
        "file": raster.path,
        "crs": str(grid.crs) if grid.crs else None,
        "gsd_m": grid.gsd_m(),
        "height": raster.source.height,
        "width": raster.source.width,
        "dtype": raster.source.dtypes[source.bands[0] - 1],
        "bands": list(source.bands),
        "nodata": _number(raster.source.nodata),
        "placed": pixel_map.kind,
        "covers": pixel_map.overlap_share(),
    }
    if jacobian is not None:
        down, across = abs(jacobian).max(axis=0)[::-1]
        facts["pixels_per_map_pixel"] = [round(float(down), 4), round(float(across), 4)]
    scaling = getattr(source, "scaling", None)
    if scaling is not None:
        facts |= {"scale": list(scaling.scales), "offset": list(scaling.offsets)}
    unit = getattr(source, "unit", None)
    return facts if unit is None else facts | {"unit": unit}


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
