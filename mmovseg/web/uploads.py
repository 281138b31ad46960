"""What a stranger's file goes through before any other part of the program sees it.

The file is copied under a name of ours, recognised by its first bytes, opened by exactly the driver that they say, and
measured by its header. Only then are its pixels read, once, into a plain GeoTIFF, and that is what the rest works on:
no sidecar file, no reference to another file or to the network, and no name from outside is ever followed.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from mmovseg.data.raster import png_is_whole
from mmovseg.errors import UserError

Role = Literal["optical", "sar"]
ROLE_NAMES: dict[Role, str] = {"optical": "optical", "sar": "SAR"}

SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "GTiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
}
"""Driver -> how its files begin. None of these formats can name another file."""

MAX_BANDS = 32
_BYTES_PER_PIXEL = 32  # of the largest raster that is accepted: 13 bands of 16 bits, and some room
_BLOCK_PIXELS = 4096 * 4096  # a block is decoded as a whole, however little of it is asked for
_SHOWN_NAME = 60
_GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar files
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",  # else a JPEG that is cut off is read as grey
    "GDAL_TIFF_INTERNAL_MASK": "YES",
    "GDAL_CACHEMAX": 64 << 20,  # bytes, as rasterio passes it on
}


@dataclass(frozen=True)
class UploadLimits:
    """The largest file, in bytes, and the largest raster, in pixels, that are accepted."""

    max_bytes: int = 64_000_000
    max_pixels: int = 4_000_000


def take_upload(path: str | Path, *, role: Role, folder: Path, limits: UploadLimits) -> Path:
    """Check an uploaded raster and write it anew.

    Args:
        path: as it arrived; its name is shown in errors and used for nothing else.
        role: what the file is for.
        folder: private to this request; gets the result and nothing else.
        limits: checked before pixels are read.

    Returns:
        ``folder/<role>.tif``: the same pixels, bands, masks, tags and georeference as an uncompressed GeoTIFF.

    Raises:
        UserError: too large, no GeoTIFF, PNG or JPEG by its content, or damaged.
    """
    path = Path(path)
    shown = f"the {ROLE_NAMES[role]} file '{shorten(path.name)}'"
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise UserError(f"{shown} has {size / 1e6:.1f} MB; this page takes {limits.max_bytes / 1e6:g} MB a file")
    driver = recognise(path)
    if driver is None:
        raise UserError(f"{shown} is no GeoTIFF, PNG or JPEG; this page reads nothing else")
    arrived, target = folder / f"{role}.upload", folder / f"{role}.tif"
    shutil.copyfile(path, arrived)
    try:
        if driver == "PNG" and not png_is_whole(str(arrived)):
            raise UserError(f"{shown} is damaged or cut off: it lacks the end of a PNG file")
        with rasterio.Env(**_GDAL), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            _copy_checked(arrived, target, driver, shown, limits)
    except (rasterio.errors.RasterioError, OSError) as error:
        target.unlink(missing_ok=True)
        raise UserError(f"{shown} is damaged or cut off: its pixels cannot be read") from error
    finally:
        arrived.unlink(missing_ok=True)
    return target


def recognise(path: str | Path) -> str | None:
    """Return the driver whose files begin as this one does, or None."""
    with open(path, "rb") as file:
        head = file.read(8)
    for driver, signatures in SIGNATURES.items():
        if head.startswith(signatures):
            return driver
    return None


def shorten(name: str) -> str:
    """Return a file's name as it can be shown: printable, on one line, not too long."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return printable if len(printable) <= _SHOWN_NAME else f"{printable[: _SHOWN_NAME - 3]}..."


def _copy_checked(arrived: Path, target: Path, driver: str, shown: str, limits: UploadLimits) -> None:
    """Open with one driver, judge the header, then read every pixel once."""
    with rasterio.open(arrived, driver=driver) as source:
        _check_header(source, shown, limits)
        profile = {"driver": "GTiff", "height": source.height, "width": source.width, "count": source.count}
        profile |= {"dtype": source.dtypes[0], "nodata": source.nodata}
        if source.crs or not source.transform.is_identity:
            profile |= {"crs": source.crs, "transform": source.transform}
        with rasterio.open(target, "w", **profile) as copy:
            for _, window in source.block_windows(1):
                copy.write(source.read(window=window), window=window)
            _copy_facts(source, copy)


def _check_header(source: rasterio.DatasetReader, shown: str, limits: UploadLimits) -> None:
    height, width, bands = source.height, source.width, source.count
    if height * width > limits.max_pixels:
        raise UserError(
            f"{shown} has {width} x {height} = {height * width / 1e6:.1f} million pixels; this page takes "
            f"{limits.max_pixels / 1e6:g} million"
        )
    if bands > MAX_BANDS:
        raise UserError(f"{shown} has {bands} bands; this page takes {MAX_BANDS}")
    if bands < 1:
        raise UserError(f"{shown} has no bands")
    if len(set(source.dtypes)) > 1:
        raise UserError(f"{shown} has bands of different types ({', '.join(sorted(set(source.dtypes)))})")
    try:
        pixel_bytes = bands * np.dtype(_NUMPY_TYPES.get(source.dtypes[0], source.dtypes[0])).itemsize
    except TypeError as error:
        raise UserError(f"{shown} holds values of the type '{source.dtypes[0]}', which cannot be read") from error
    if height * width * pixel_bytes > limits.max_pixels * _BYTES_PER_PIXEL:
        raise UserError(
            f"{shown} unpacks to {height * width * pixel_bytes / 1e6:.0f} MB; this page takes "
            f"{limits.max_pixels * _BYTES_PER_PIXEL / 1e6:.0f} MB"
        )
    rows, columns = source.block_shapes[0]
    if rows * columns > max(_BLOCK_PIXELS, limits.max_pixels):
        raise UserError(f"{shown} is stored in blocks of {columns} x {rows} pixels, which is too large to unpack")


_NUMPY_TYPES = {"complex_int16": "complex64"}
_PARAMETERS = ("self", "bidx", "ns", "kwargs")


def _copy_facts(source: rasterio.DatasetReader, copy: rasterio.io.DatasetWriter) -> None:
    """Take over what a raster says of itself besides its pixels."""
    flags = {flag for band in source.mask_flag_enums for flag in band}
    if rasterio.enums.MaskFlags.per_dataset in flags and rasterio.enums.MaskFlags.alpha not in flags:
        copy.write_mask(source.dataset_mask())
    copy.colorinterp = source.colorinterp
    if source.colorinterp[0] == rasterio.enums.ColorInterp.palette:
        copy.write_colormap(1, source.colormap(1))
    copy.descriptions, copy.units = source.descriptions, [unit or "" for unit in source.units]
    copy.scales, copy.offsets = source.scales, source.offsets
    copy.update_tags(**_kept(source.tags()))
    for band in source.indexes:
        copy.update_tags(band, **_kept(source.tags(band)))
    if source.gcps[0]:
        copy.gcps = source.gcps
    if source.rpcs:
        copy.rpcs = source.rpcs


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    """Leave out tags called like a parameter of rasterio's `update_tags`: they would choose where the others go."""
    return {name: value for name, value in tags.items() if name not in _PARAMETERS}
