"""Look at one raster file: what it is, and whether it can be read to the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from mmovseg.data.datasets.manifest import crs_name, file_sha256
from mmovseg.data.raster import png_is_whole

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class RasterFacts:
    """What a raster file is.

    problem: why it cannot be used, or an empty string; then the facts below hold.
    size: height and width, pixels.
    crs: name, or None.
    bounds: left, bottom, right, top in units of the CRS; None without georeference.
    pixel: size of a pixel in units of the CRS (across, down).
    values: the values of a label, ascending; None for other files and when pixels were not read.
    constant: whether all pixels are equal (an empty tile); False when pixels were not read.
    sha256: hash of the bytes; None when it was not asked for.
    """

    path: Path
    problem: str = ""
    size: tuple[int, int] = (0, 0)
    crs: str | None = None
    bounds: Bounds | None = None
    pixel: tuple[float, float] = (0.0, 0.0)
    values: tuple[int, ...] | None = None
    constant: bool = False
    sha256: str | None = None


def examine_raster(path: Path, *, is_label: bool, fast: bool = False) -> RasterFacts:
    """Open a raster and, unless `fast`, read and hash all of it; safe to call from threads.

    Args:
        path: must exist.
        is_label: also list the values of the first band.
        fast: read the header (and the end of a PNG) only.
    """
    digest = None if fast else file_sha256(path)
    try:
        with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING="TRUE"), rasterio.open(path) as source:
            facts = _header(source)
            if source.driver == "PNG" and not png_is_whole(str(path)):
                return RasterFacts(path, "is cut off: it lacks the end of a PNG file", sha256=digest)
            if not fast:
                facts |= _pixels(source, is_label)
    except RasterioError:
        return RasterFacts(path, "is damaged, cut off, or not a raster", sha256=digest)
    return RasterFacts(path, sha256=digest, **facts)


def _header(source: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"size": (source.height, source.width), "crs": crs_name(source.crs) if source.crs else None}
    if not source.transform.is_identity:
        facts |= {"bounds": tuple(source.bounds), "pixel": tuple(source.res)[::-1]}
    return facts


def _pixels(source: Any, is_label: bool) -> dict[str, Any]:
    values = source.read()
    facts: dict[str, Any] = {"constant": bool((values == values.flat[0]).all())}
    if is_label:
        label = values[0]
        if np.issubdtype(label.dtype, np.inexact):
            label = label[np.isfinite(label)]
        facts["values"] = tuple(int(value) for value in np.unique(label))
    return facts
