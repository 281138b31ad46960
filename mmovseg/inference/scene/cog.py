"""Join strips of rows to one Cloud-Optimised GeoTIFF through a virtual raster, without holding the raster in memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from mmovseg.inference.grid import Grid
from mmovseg.inference.scene.layers import Layer

CACHE_BYTES = 64 * 2**20
"""GDAL's block cache; rasterio hands the number over unchanged, so it is in bytes."""
BLOCK = 512
_MOST_BLOCK_BYTES = 16 * 2**20
_MOST_THREADS = 4
_GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16"}

Strip = tuple[Path, int, int]
"""A file and the rows from, to (exclusive) that it holds, full width."""


def write_cog(layer: Layer, strips: Sequence[Strip], target: Path, grid: Grid, tags: Mapping[str, str]) -> None:
    """Write a layer as a Cloud-Optimised GeoTIFF.

    The bytes depend on pixels, grid and tags alone, not on how the strips are cut or on the number of threads. Beside
    `target` a virtual raster and GDAL's own temporary files come and go, so give it a folder of temporary files.

    Args:
        layer: what it is.
        strips: files that together cover the grid, `layer.bands` bands each.
        target: the file to write.
        grid: of the whole.
        tags: of the file.

    Raises:
        OSError, RasterioError: it cannot be written or read back.
    """
    virtual = target.with_suffix(".vrt")
    virtual.write_bytes(virtual_raster(layer, strips, virtual.parent, grid, tags))
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    options = {
        "COMPRESS": "DEFLATE",
        "LEVEL": "6",
        "PREDICTOR": "STANDARD" if layer.scale is not None else "NO",
        "BLOCKSIZE": str(block_size(layer)),
        "BIGTIFF": "IF_SAFER",
        "OVERVIEWS": "IGNORE_EXISTING",
        "RESAMPLING": layer.overview_resampling.upper(),
        "NUM_THREADS": str(threads),
    }
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_PAM_ENABLED="NO", VRT_NUM_THREADS="1"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        rasterio.shutil.copy(str(virtual), str(target), driver="COG", **options)
        read_every_block(target)
    virtual.unlink()


def block_size(layer: Layer) -> int:
    """Return the side of a tile in pixels: smaller with many bands, since GDAL holds a tile of all bands."""
    side = BLOCK
    while side > 128 and layer.raw_bytes(side * side) > _MOST_BLOCK_BYTES:
        side //= 2
    return side


def read_every_block(path: Path) -> None:
    """Read a raster once from end to end: a disk that ran full shows here at the latest.

    Raises:
        OSError, RasterioError: a block is missing or damaged.
    """
    with rasterio.open(path) as source:
        height, width = source.block_shapes[0]
        for row in range(0, source.height, height):
            for column in range(0, source.width, width):
                rows, columns = min(height, source.height - row), min(width, source.width - column)
                source.read(window=Window(column, row, columns, rows))


def virtual_raster(layer: Layer, strips: Sequence[Strip], folder: Path, grid: Grid, tags: Mapping[str, str]) -> bytes:
    """Return the XML of a GDAL virtual raster of the strips, with everything that the finished file is to say.

    Args:
        layer, strips, grid, tags: as `write_cog`.
        folder: that the XML will lie in; the strips are named relative to it.
    """
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs:
        ElementTree.SubElement(root, "SRS", dataAxisToSRSAxisMapping=_axis_order(grid.crs)).text = grid.crs.to_wkt()
    if grid.transform != Affine.identity():
        numbers = grid.transform.to_gdal()
        ElementTree.SubElement(root, "GeoTransform").text = ", ".join(repr(float(number)) for number in numbers)
    _add_tags(root, tags)
    for band in range(1, layer.bands + 1):
        _add_band(root, band, layer, strips, folder, grid)
    return ElementTree.tostring(root, encoding="utf-8")


def _axis_order(crs: CRS) -> str:
    """Say that columns run along x (longitude) even where the authority of the system names latitude first."""
    return "2,1" if crs.is_geographic else "1,2"


def _add_band(
    root: ElementTree.Element, band: int, layer: Layer, strips: Sequence[Strip], folder: Path, grid: Grid
) -> None:
    dtype, side = _GDAL_TYPES[layer.dtype], str(block_size(layer))
    node = ElementTree.SubElement(
        root, "VRTRasterBand", dataType=dtype, band=str(band), blockXSize=side, blockYSize=side
    )
    _add_tags(node, layer.band_tags)
    ElementTree.SubElement(node, "Description").text = _printable(layer.descriptions[band - 1])
    if layer.nodata is not None:
        ElementTree.SubElement(node, "NoDataValue").text = str(layer.nodata)
    if layer.colormap is not None:
        ElementTree.SubElement(node, "ColorInterp").text = "Palette"
        table = ElementTree.SubElement(node, "ColorTable")
        for value in range(max(layer.colormap) + 1):
            color = layer.colormap.get(value, (0, 0, 0, 255))
            ElementTree.SubElement(table, "Entry", {f"c{i + 1}": str(part) for i, part in enumerate(color)})
    else:
        ElementTree.SubElement(node, "ColorInterp").text = "Gray" if band == 1 else "Undefined"
    if layer.scale is not None:
        ElementTree.SubElement(node, "Offset").text = "0"
        ElementTree.SubElement(node, "Scale").text = repr(layer.scale)
    for path, start, stop in strips:
        _add_strip(node, band, dtype, (os.path.relpath(path, folder), start, stop), grid.width)


def _add_strip(node: ElementTree.Element, band: int, dtype: str, strip: tuple[str, int, int], width: int) -> None:
    name, start, stop = strip
    source = ElementTree.SubElement(node, "SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = name
    ElementTree.SubElement(source, "SourceBand").text = str(band)
    size = {"xSize": str(width), "ySize": str(stop - start)}
    # With its size and type given GDAL opens a strip when it is read, and not all of them at the start.
    facts = {"RasterXSize": str(width), "RasterYSize": str(stop - start), "DataType": dtype}
    ElementTree.SubElement(source, "SourceProperties", facts | {"BlockXSize": str(BLOCK), "BlockYSize": str(BLOCK)})
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ElementTree.SubElement(source, "DstRect", {"xOff": "0", "yOff": str(start), **size})


def _add_tags(parent: ElementTree.Element, tags: Mapping[str, str]) -> None:
    if tags:
        metadata = ElementTree.SubElement(parent, "Metadata")
        for key, value in tags.items():
            ElementTree.SubElement(metadata, "MDI", key=_printable(key)).text = _printable(str(value))


def _printable(text: str) -> str:
    """Replace control characters, which XML cannot hold."""
    return "".join(character if character.isprintable() else " " for character in text)
