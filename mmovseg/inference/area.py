"""How many hectares each class of a georeferenced label raster covers."""

from __future__ import annotations

import math
import re

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine

from mmovseg.errors import UserError

HECTARE_M2 = 10_000.0
_WEB_MERCATOR = (3857, 3785, 900913)
_WHOLE_TURN_DEG = 360.0


def class_areas(labels: np.ndarray, *, crs: CRS | None, transform: Affine, source: str = "raster") -> dict[int, float]:
    """Sum the area of the pixels of each value.

    In a projected system a pixel has the area of its cell in the plane of the map, in the system's own length unit; for
    UTM that is within 0.2 % of the ground. In a geographic system the area of a cell on the ellipsoid depends on its
    row and is exact.

    Args:
        labels: (H, W) integers.
        crs: of the raster.
        transform: of the raster.
        source: named in errors.

    Returns:
        value -> hectares, in the order of the values.

    Raises:
        UserError: no coordinate system, one without areas (local), or one that stretches them (web Mercator).
    """
    row_m2 = row_pixel_areas(labels.shape[0], crs=crs, transform=transform, source=source)
    values = np.unique(labels)
    return {int(value): float(((labels == value).sum(axis=1) * row_m2).sum() / HECTARE_M2) for value in values}


def row_pixel_areas(height: int, *, crs: CRS | None, transform: Affine, source: str = "raster") -> np.ndarray:
    """Return (height,) float64: the area in square metres of a pixel of each row. Errors as `class_areas`."""
    if crs is None or not crs:
        raise UserError(f"'{source}' has no coordinate reference system, so areas are unknown; georeference it first")
    if crs.is_geographic:
        return _geographic_areas(height, crs, transform, source)
    if not crs.is_projected:
        raise UserError(f"'{source}' has the coordinate system '{crs}', which is neither projected nor geographic")
    if crs.to_epsg() in _WEB_MERCATOR:
        raise UserError(
            f"'{source}' is in web Mercator, which enlarges areas, fourfold at 60 degrees; reproject it first"
        )
    metres = _metres_per_unit(crs, source)
    return np.full(height, abs(transform.determinant) * metres**2)


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
