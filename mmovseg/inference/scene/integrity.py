"""Whether a raster file can hold what its header claims, found without reading it all."""

from __future__ import annotations

import math
import os

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError

from mmovseg.data.raster import Raster
from mmovseg.errors import UserError

MOST_SHRUNK = 1_000_000
"""No format of the table below makes pixels so many times smaller, not even constant ones with offsets of blocks."""

LARGEST_BLOCK_BYTES = 1 << 30
_PIXELS_INSIDE = ("GTiff", "COG", "PNG", "JPEG", "BMP", "GIF", "WEBP", "JP2OpenJPEG", "JPEGXL")
_PROBES = 9  # blocks looked at along each axis


def check_whole(raster: Raster) -> None:
    """Check the layout of an open raster.

    Raises:
        UserError: no bands, a size that cannot be in the file, blocks beyond its end, or blocks too large for memory.
    """
    source = raster.source
    name = f"{raster.role} raster '{raster.path}'"
    if source.count == 0:
        inside = source.subdatasets
        if inside:
            raise UserError(
                f"{name} is a container of {len(inside)} rasters and has no bands itself; name one of them, for "
                f"example '{inside[0]}'"
            )
        raise UserError(f"{name} has no bands")
    block_height, block_width = source.block_shapes[0]
    item = _item_size(source.dtypes[0])
    block_bytes = block_height * block_width * item
    if source.interleaving == Interleaving.pixel:  # a block is decoded with all its bands
        block_bytes = block_height * block_width * sum(map(_item_size, source.dtypes))
    if block_bytes > LARGEST_BLOCK_BYTES:
        raise UserError(
            f"{name} is stored in pieces of {block_height}x{block_width} pixels, {block_bytes / 2**30:.1f} GiB each; "
            "rewrite it in tiles: gdal_translate -co TILED=YES -co BIGTIFF=IF_SAFER in.tif out.tif"
        )
    if not os.path.isfile(raster.path) or source.driver not in _PIXELS_INSIDE:
        return
    size = os.path.getsize(raster.path)
    raw = source.height * source.width * source.count * item
    if raw > max(size, 1) * MOST_SHRUNK:
        raise UserError(
            f"{name} claims {source.height}x{source.width} pixels, but its {size} bytes cannot hold them; it is damaged"
        )
    if source.driver in ("GTiff", "COG"):
        _check_blocks(raster, name, size)


def _check_blocks(raster: Raster, name: str, size: int) -> None:
    """Look where some blocks lie, the last ones too; a block without offset is a hole and means no data."""
    source = raster.source
    block_height, block_width = source.block_shapes[0]
    rows, columns = math.ceil(source.height / block_height), math.ceil(source.width / block_width)
    for row in np.unique(np.linspace(0, rows - 1, _PROBES).astype(int)):
        for column in np.unique(np.linspace(0, columns - 1, _PROBES).astype(int)):
            try:
                place = [
                    source.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=source.count)
                    for what in ("OFFSET", "SIZE")
                ]
            except (CPLE_BaseError, RasterioError) as error:
                raise UserError(f"{name} is damaged or cut off: its table of blocks cannot be read") from error
            if None not in place and int(place[0]) + int(place[1]) > size:
                raise UserError(
                    f"{name} is damaged or cut off: it ends at byte {size}, but block ({row}, {column}) of its pixels "
                    f"reaches to byte {int(place[0]) + int(place[1])}"
                )


def _item_size(dtype: str) -> int:
    if dtype.startswith("complex_int"):
        return 4
    return int(np.dtype(dtype).itemsize)
