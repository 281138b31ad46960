"""Read and write tiles with their georeference. Writing is atomic: a file has its name only when it is whole."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from mmovseg.data.prepare.tiling import Tile
from mmovseg.data.raster import png_is_whole
from mmovseg.errors import UserError

LAYER_SUFFIXES = (".png", ".tif")
"""What `write_layer` may write."""

PARTIAL_MARK = ".partial-"


@dataclass(frozen=True)
class Layer:
    """A raster in memory with what a GeoTIFF says beside the pixels.

    array: (H, W) or (H, W, B), any dtype that GeoTIFF knows.
    crs, transform: the place, or None.
    nodata: value that means "no data", or None.
    band_names: one a band, or empty.
    """

    array: np.ndarray
    crs: CRS | None = None
    transform: Affine | None = None
    nodata: float | None = None
    band_names: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return int(self.array.shape[0]), int(self.array.shape[1])

    @property
    def is_georeferenced(self) -> bool:
        return self.crs is not None or self.transform is not None

    def with_array(self, array: np.ndarray) -> Layer:
        """Return other pixels at the same place; nodata and band names are dropped, as they may no longer fit."""
        return replace(self, array=array, nodata=None, band_names=())


def read_layer(path: str | Path, *, tile: Tile | None = None, bands: Sequence[int] | None = None) -> Layer:
    """Read a raster, or a window of it, as stored: palettes are not expanded, nothing is scaled.

    Args:
        path: anything GDAL knows.
        tile: window to read; the transform moves with it. None = all.
        bands: 1-based band numbers in the wanted order; None = all.

    Returns:
        A layer of (H, W, B); (H, W) if one band was read.

    Raises:
        UserError: the file is missing, damaged or cut off, lacks a band, or is smaller than the window.
    """
    path = str(path)
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING="TRUE"):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                _check_readable(source, path, tile, bands)
                window = None if tile is None else Window(tile.col, tile.row, tile.width, tile.height)
                numbers = list(bands or source.indexes)
                values = source.read(numbers, window=window)
                names = tuple(source.descriptions[number - 1] or "" for number in numbers)
                placed = source.transform if window is None else source.window_transform(window)
                transform = None if source.transform.is_identity else placed
                crs, nodata = source.crs, source.nodata
    except RasterioError as error:
        reason = "does not exist" if not os.path.exists(path) else "is damaged, cut off, or not a raster"
        raise UserError(f"raster '{path}' {reason}") from error
    array = values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
    return Layer(array, crs or None, transform, nodata, names if any(names) else ())


def read_size(path: str | Path) -> tuple[int, int]:
    """Return height and width of a raster without reading its pixels; errors as `read_layer`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                return int(source.height), int(source.width)
    except RasterioError as error:
        reason = "does not exist" if not os.path.exists(path) else "is damaged, cut off, or not a raster"
        raise UserError(f"raster '{path}' {reason}") from error


def read_place(path: str | Path) -> tuple[CRS | None, Affine | None]:
    """Return CRS and transform of a raster, each None if it has none; errors as `read_layer`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                return source.crs or None, None if source.transform.is_identity else source.transform
    except RasterioError as error:
        reason = "does not exist" if not os.path.exists(path) else "is damaged, cut off, or not a raster"
        raise UserError(f"raster '{path}' {reason}") from error


def write_layer(folder: str | Path, stem: str, layer: Layer) -> Path:
    """Write a layer as ``<folder>/<stem>.png`` or ``.tif`` and return the path.

    8-bit layers of one or three bands that have no georeference and no nodata value become PNG; all others GeoTIFF
    (deflate). The same layer gives the same bytes.

    Raises:
        UserError: the folder or the file cannot be written.
    """
    array = layer.array[:, :, None] if layer.array.ndim == 2 else layer.array
    plain = array.dtype == np.uint8 and array.shape[2] in (1, 3)
    as_png = plain and not layer.is_georeferenced and layer.nodata is None
    path = Path(folder) / f"{stem}{'.png' if as_png else '.tif'}"
    partial = path.with_name(f".{path.name}{PARTIAL_MARK}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(partial, array, layer, "PNG" if as_png else "GTiff")
        os.replace(partial, path)
    except (OSError, RasterioError) as error:
        raise UserError(f"raster '{path}' cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def remove_partial_files(root: str | Path) -> None:
    """Remove what a killed run left below `root`: files half written, archives half unpacked."""
    for path in list(Path(root).rglob(f".*{PARTIAL_MARK}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _write(path: Path, array: np.ndarray, layer: Layer, driver: str) -> None:
    options: dict[str, Any] = {"driver": driver, "dtype": array.dtype, "count": array.shape[2]}
    options |= {"height": array.shape[0], "width": array.shape[1]}
    if driver == "GTiff":
        options |= {"compress": "deflate", "crs": layer.crs, "transform": layer.transform, "nodata": layer.nodata}
        if array.dtype.kind in "iuf":
            options["predictor"] = 3 if array.dtype.kind == "f" else 2  # images get a tenth to a fifth smaller
        if array.dtype == np.uint8 and array.shape[2] == 3:
            options["photometric"] = "rgb"
    options = {key: value for key, value in options.items() if value is not None}
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **options) as raster:
            raster.write(np.ascontiguousarray(array.transpose(2, 0, 1)))
            if layer.band_names and driver == "GTiff":
                raster.descriptions = layer.band_names


def _check_readable(source: Any, path: str, tile: Tile | None, bands: Sequence[int] | None) -> None:
    missing = [band for band in bands or () if band not in source.indexes]
    if missing:
        raise UserError(f"raster '{path}' has {source.count} bands, no band {missing[0]}")
    if source.driver == "PNG" and os.path.isfile(path) and not png_is_whole(path):
        raise UserError(f"raster '{path}' is damaged or cut off: it lacks the end of a PNG file")
    if tile is not None and (tile.row + tile.height > source.height or tile.col + tile.width > source.width):
        raise UserError(f"raster '{path}' is {source.height}x{source.width} pixels, too small for the window {tile}")
