"""How many hectares each class of a georeferenced label raster covers."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine

from mmovseg.errors import UserError
from mmovseg.inference.grid import ground_area, map_point

HECTARE_M2 = 10_000.0
_STRETCH_TOLERANCE = 0.02
"""Share by which the plane may differ from the ground: UTM, Lambert and national grids at home differ by less."""
_PLACES = 5
"""Places per axis where plane and ground are compared: the middles of so many equal parts of the raster."""
_STEP_M = 10.0
_WHOLE_TURN_DEG = 360.0


def class_areas(labels: np.ndarray, *, crs: CRS | None, transform: Affine, source: str = "raster") -> dict[int, float]:
    """Sum the area of the pixels of each value.

    In a projected system a pixel has the area of its cell in the plane of the map, in the system's own length unit; for
    UTM that is within 0.2 % of the ground. A system whose plane differs from the ground by more than 2 % somewhere in
    the raster is refused; one without longitude and latitude on the earth (the moon's) cannot be checked. In a
    geographic system the area of a cell on the ellipsoid depends on its row and is exact.

    Args:
        labels: (H, W) integers.
        crs: of the raster.
        transform: of the raster.
        source: named in errors.

    Returns:
        value -> hectares, in the order of the values.

    Raises:
        UserError: no coordinate system, one without areas (local), or one that stretches them (Mercator, plate carree).
    """
    row_m2 = row_pixel_areas(labels.shape, crs=crs, transform=transform, source=source)
    values = np.unique(labels)
    return {int(value): float(((labels == value).sum(axis=1) * row_m2).sum() / HECTARE_M2) for value in values}


def row_pixel_areas(
    shape: tuple[int, ...], *, crs: CRS | None, transform: Affine, source: str = "raster"
) -> np.ndarray:
    """Return (H,) float64: the square metres of a pixel of each row of a raster (H, W). Errors as `class_areas`."""
    height, width = shape
    if crs is None or not crs:
        raise UserError(f"'{source}' has no coordinate reference system, so areas are unknown; georeference it first")
    if crs.is_geographic:
        return _geographic_areas(height, crs, transform, source)
    if not crs.is_projected:
        raise UserError(f"'{source}' has the coordinate system '{crs}', which is neither projected nor geographic")
    metres = _metres_per_unit(crs, source)
    stretch = _worst_stretch(height, width, crs, transform, metres)
    if abs(stretch - 1.0) > _STRETCH_TOLERANCE:
        raise UserError(
            f"'{source}' has the coordinate system '{_name(crs)}', which shows areas {stretch:.2f} times as large as "
            "they are on the ground; reproject it first, for example to UTM"
        )
    return np.full(height, abs(transform.determinant) * metres**2)


def _worst_stretch(height: int, width: int, crs: CRS, transform: Affine, metres: float) -> float:
    """Return how many times as large as on the ground an area is in the plane, where that is farthest from 1."""
    step = _STEP_M / metres  # of the plane and not of pixels, which may be too large for a flat ground
    middles = (np.arange(_PLACES) + 0.5) / _PLACES
    worst = 1.0
    for column, row in itertools.product(middles * width, middles * height):
        x, y = map_point(transform, column, row)
        ground_m2 = ground_area(crs, (x, x + step, x), (y, y, y + step))
        if ground_m2 is not None and abs(_STEP_M**2 / ground_m2 - 1.0) > abs(worst - 1.0):
            worst = _STEP_M**2 / ground_m2
    return worst


def _name(crs: CRS) -> str:
    """Return the code of a system, or its name where it has none; never its whole definition."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code is not None else crs.to_wkt().split('"')[1]


def _geographic_areas(height: int, crs: CRS, transform: Affine, source: str) -> np.ndarray:
    if transform.b or transform.d:
        raise UserError(f"'{source}' is turned against the meridians; its areas are only known for a grid along them")
    major, inverse_flattening = _ellipsoid(crs, source)
    latitudes = transform.f + transform.e * np.arange(height + 1)
    if np.abs(latitudes).max() > 90.0 + 1e-6:
        raise UserError(f"'{source}' reaches the latitude {latitudes[np.abs(latitudes).argmax()]:g} degrees")
    below_equator = _area_from_equator(np.clip(latitudes, -90.0, 90.0), major, inverse_flattening)
    return np.abs(np.diff(below_equator)) * abs(transform.a) / _WHOLE_TURN_DEG


def _area_from_equator(latitude_deg: np.ndarray, major: float, inverse_flattening: float) -> np.ndarray:
    """Return the area in square metres between the equator and a parallel, all around an ellipsoid, negative south."""
    flattening = 1.0 / inverse_flattening if inverse_flattening else 0.0
    minor = major * (1.0 - flattening)
    sine = np.sin(np.deg2rad(latitude_deg))
    eccentricity = math.sqrt(flattening * (2.0 - flattening))
    if eccentricity == 0.0:
        return 2.0 * math.pi * major**2 * sine
    product = eccentricity * sine
    return math.pi * minor**2 * (sine / (1.0 - product**2) + np.arctanh(product) / eccentricity)


def _ellipsoid(crs: CRS, source: str) -> tuple[float, float]:
    """Return semi-major axis in metres and inverse flattening (0 = sphere)."""
    found = re.search(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.]+),\s*([\d.]+)', crs.to_wkt())
    if found is None:
        raise UserError(f"'{source}' has the coordinate system '{crs}', which names no ellipsoid")
    return float(found.group(1)), float(found.group(2))


def _metres_per_unit(crs: CRS, source: str) -> float:
    try:
        return float(crs.linear_units_factor[1])
    except CRSError as error:
        raise UserError(f"'{source}' has the coordinate system '{crs}', whose length unit is unknown") from error
