"""Bad rasters: files that are none, damaged headers, useless values, places that do not fit."""

from __future__ import annotations

import gzip
import math
import os
import struct
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from mmovseg.testing.malformed import (
    CLOUDS,
    CRS_NAME,
    GSD_M,
    HEIGHT,
    OPTICAL,
    PLACE,
    SAR,
    WIDTH,
    BadCase,
    Maker,
    patch_tag,
    read,
    rewrite,
    write,
)

FileMaker = Callable[[Path], None]
"""Breaks one file, which is good before."""

_EAST, _NORTH = PLACE.c, PLACE.f


# --- files that are no rasters, or not whole ones


def _bytes(content: bytes) -> FileMaker:
    return lambda path: _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _garbage(path: Path, head: bytes, *, size: int = 4000, seed: int = 0) -> None:
    path.write_bytes(head + np.random.default_rng(seed).bytes(size))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _cut(path: Path, keep: int | float) -> None:
    """Keep so many bytes, or such a share; a negative number is cut off at the end."""
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * keep) if isinstance(keep, float) else keep])


def _as_format(path: Path, driver: str, keep: float) -> None:
    """Write the picture in another format under the old name, and cut it off."""
    other = path.with_name(f"{path.name}.{driver.lower()}")
    first = read(path)[:, :, :1]
    write(other, np.nan_to_num(first * (255 if first.max() <= 1 else 1)).clip(0, 255).astype(np.uint8), driver=driver)
    content = other.read_bytes()
    path.write_bytes(content[: round(len(content) * keep)])
    for leftover in path.parent.glob(f"{other.name}*"):
        leftover.unlink()


def _compressed(path: Path, *, tiled: bool = False) -> None:
    layout: dict[str, object] = {"tiled": True, "blockxsize": 32, "blockysize": 32} if tiled else {"blockysize": 8}
    write(path, read(path), compress="deflate", **layout)


def _compressed_cut(path: Path, keep: float, *, tiled: bool) -> None:
    _compressed(path, tiled=tiled)
    _cut(path, keep)


def _garbled_pixels(path: Path) -> None:
    """Overwrite the middle third of packed pixels."""
    _compressed(path)
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = b"\xa5" * third
    path.write_bytes(content)


def _flipped(path: Path, seed: int) -> None:
    """Flip a bit in every fourth byte of the directory, chosen by the seed."""
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    (count,) = struct.unpack_from("<H", content, 8)
    for offset in rng.choice(np.arange(10, 10 + 12 * count), size=3 * count, replace=False):
        content[offset] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def _number_at(path: Path, offset: int, layout: str, value: int) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, value)
    path.write_bytes(content)


def _tag(tag: int, value: int) -> FileMaker:
    return partial(patch_tag, tag=tag, value=value)


def _both_sides(path: Path, side: int) -> None:
    patch_tag(path, 256, side)
    patch_tag(path, 257, side)


def _tiled_without_size(path: Path) -> None:
    _compressed(path, tiled=True)
    patch_tag(path, 322, 0)


def _vrt(path: Path, source: str | None = None, *, width: int = WIDTH, height: int = HEIGHT, keep: float = 1.0) -> None:
    """Put a VRT of one band in the place of a file, which reads that of another (None: of itself), and cut it off."""
    text = (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{CRS_NAME}</SRS>'
        f"<GeoTransform>{_EAST}, {GSD_M}, 0, {_NORTH}, 0, {-GSD_M}</GeoTransform>"
        f'<VRTRasterBand dataType="{"Float32" if path.name == SAR else "Byte"}" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source or path.name}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    path.write_text(text[: round(len(text) * keep)])


_FILES: dict[str, FileMaker] = {
    "missing": Path.unlink,
    "empty": _bytes(b""),
    "one byte": _bytes(b"I"),
    "a folder": _folder,
    "a pipe": _fifo,
    "a link to nothing": partial(_link, target="nowhere.tif"),
    "a link to itself": lambda path: _link(path, path.name),
    "a link to a device": partial(_link, target="/dev/zero"),
    "text": _bytes(b"not a raster\n" * 40),
    "an error page": _bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"),
    "a numpy file": _bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (8, 8), }"),
    "a zip archive": partial(_garbage, head=b"PK\x03\x04"),
    "a packed TIFF": lambda path: _replace(path, gzip.compress(path.read_bytes())),
    "netCDF garbage": partial(_garbage, head=b"CDF\x01"),
    "HDF5 garbage": partial(_garbage, head=b"\x89HDF\r\n\x1a\n"),
    "HDF4 garbage": partial(_garbage, head=b"\x0e\x03\x13\x01"),
    "JPEG 2000 garbage": partial(_garbage, head=b"\x00\x00\x00\x0cjP  \r\n\x87\n"),
    "a cut PNG": partial(_as_format, driver="PNG", keep=0.5),
    "a cut JPEG": partial(_as_format, driver="JPEG", keep=0.5),
    "a PNG header": _bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x20\x00\x00\x00\x20\x08\x00\x00\x00\x00"),
    "cut after the magic number": partial(_cut, keep=4),
    "cut after the header": partial(_cut, keep=8),
    "cut in the directory": partial(_cut, keep=60),
    "cut after the directory": partial(_cut, keep=200),
    "cut in the pixels": partial(_cut, keep=0.5),
    "cut near the end": partial(_cut, keep=-64),
    "cut in packed strips": partial(_compressed_cut, keep=0.6, tiled=False),
    "cut in packed tiles": partial(_compressed_cut, keep=0.6, tiled=True),
    "garbled packed pixels": _garbled_pixels,
    "another magic number": partial(_number_at, offset=2, layout="<H", value=99),
    "a BigTIFF in name only": partial(_number_at, offset=2, layout="<H", value=43),
    "directory beyond the end": partial(_number_at, offset=4, layout="<I", value=2**31),
    "directory of 65535 entries": partial(_number_at, offset=8, layout="<H", value=65535),
    "directory of no entries": partial(_number_at, offset=8, layout="<H", value=0),
    "width 0": _tag(256, 0),
    "height 0": _tag(257, 0),
    "width 2^31 - 1": _tag(256, 2**31 - 1),
    "height 2^31 - 1": _tag(257, 2**31 - 1),
    "width 2^32 - 1": _tag(256, 2**32 - 1),
    "a million squared": partial(_both_sides, side=10**6),
    "both sides 2^31 - 1": partial(_both_sides, side=2**31 - 1),
    "no bands": _tag(277, 0),
    "65535 bands": _tag(277, 65535),
    "unknown compression": _tag(259, 9999),
    "17 bits a value": _tag(258, 17),
    "tiles of width 0": _tiled_without_size,
    "flipped bits 1": partial(_flipped, seed=1),
    "flipped bits 2": partial(_flipped, seed=2),
    "flipped bits 3": partial(_flipped, seed=3),
    "a VRT without its source": partial(_vrt, source="gone.tif"),
    "a VRT of itself": _vrt,
    "a VRT of size 0": partial(_vrt, source="pixels.tif", width=0, height=0),
    "a VRT with broken XML": partial(_vrt, source="pixels.tif", keep=0.4),
    "a VRT without bands": _bytes(b'<VRTDataset rasterXSize="8" rasterYSize="8"></VRTDataset>'),
}


# --- values


def _filled(value: float, dtype: str = "float32", bands: int | None = None, **profile: object) -> FileMaker:
    def make(path: Path) -> None:
        height, width, count = read(path).shape
        rewrite(path, np.full((height, width, bands or count), value, dtype=dtype), **profile)

    return make


def _changed(change: Callable[[np.ndarray], np.ndarray], **profile: object) -> FileMaker:
    return lambda path: rewrite(path, change(read(path)), **profile)


def _linear(sar_db: np.ndarray) -> np.ndarray:
    return (10.0 ** (sar_db / 10)).astype(np.float32)


def _bands(count: int) -> FileMaker:
    return _changed(lambda array: np.repeat(array[:, :, :1], count, axis=2) + np.arange(count).astype(array.dtype))


_OPTICAL_VALUES: dict[str, FileMaker] = {
    "NaN only": _filled(np.nan),
    "infinity only": _filled(np.inf),
    "nodata only": _filled(0, "uint8", nodata=0),
    "black": _filled(0, "uint8"),
    "white": _filled(255, "uint8"),
    "saturated 16 bit": _filled(65535, "uint16"),
    "16 bit far above the range": _changed(lambda array: (array.astype(np.uint16) + 40) * 200),
    "floats without a range": _changed(lambda array: array.astype(np.float32) / 255),
    "complex": _changed(lambda array: array.astype(np.complex64)),
    "two bands": _bands(2),
    "five bands without names": _bands(5),
    "thirteen bands": _bands(13),
}
_SAR_VALUES: dict[str, FileMaker] = {
    "NaN only": _filled(np.nan),
    "infinity only": _filled(-np.inf),
    "nodata only": _filled(-9999, nodata=-9999),
    "zero everywhere": _filled(0.0),
    "linear power": _changed(_linear),
    "amplitude": _changed(lambda array: 100 * np.sqrt(_linear(array))),
    "huge values": _changed(lambda array: array * 1e6),
    "positive dB": _changed(lambda array: -array + 40),
    "undeclared nodata": _filled(-32768.0),
    "three bands": _bands(3),
    "seven bands": _bands(7),
}


# --- places


def _moved(east: float, north: float, crs: str = "EPSG:32632") -> FileMaker:
    return lambda path: rewrite(path, crs=crs, transform=Affine(GSD_M, 0, east, 0, -GSD_M, north))


def _degrees(longitude: float, latitude: float) -> FileMaker:
    step = GSD_M / 111_000
    return lambda path: rewrite(path, crs="EPSG:4326", transform=Affine(step, 0, longitude, 0, -step, latitude))


def _as_vrt(place: str, srs: str = "EPSG:32632") -> FileMaker:
    """Put a VRT with the values of the file and another place under its name."""

    def make(path: Path) -> None:
        pixels = path.with_name(f"{path.stem}_pixels.tif")
        count = read(path).shape[2]
        path.rename(pixels)
        kind = "Float32" if path.name == SAR else "Byte"
        bands = "".join(
            f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">'
            f"{pixels.name}</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
            for band in range(1, count + 1)
        )
        head = f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><SRS>{srs}</SRS>'
        path.write_text(f"{head}<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>")

    return make


def _rotated_away(path: Path) -> None:
    across, down = GSD_M * math.cos(math.radians(30)), GSD_M * math.sin(math.radians(30))
    rewrite(path, transform=Affine(across, -down, _EAST + 40_000, -down, -across, _NORTH))


def _control_points_only(path: Path) -> None:
    points = [
        GroundControlPoint(row=row, col=col, x=_EAST + GSD_M * col, y=_NORTH - GSD_M * row)
        for row, col in ((0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH))
    ]
    values = read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        write(path, values, crs=CRS_NAME, transform=None, gcps=points)


_LOCAL = 'LOCAL_CS["site grid",LOCAL_DATUM["site",0],UNIT["metre",1]]'
_MOON = 'GEOGCS["Moon",DATUM["D_Moon",SPHEROID["Moon",1737400,0]],PRIMEM["R",0],UNIT["degree",0.0174532925]]'
_PLACES: dict[str, FileMaker] = {
    "another UTM zone": _moved(_EAST, _NORTH, "EPSG:32638"),
    "the southern hemisphere": _moved(_EAST, _NORTH, "EPSG:32732"),
    "100 km to the east": _moved(_EAST + 100_000, _NORTH),
    "just beside": _moved(_EAST + GSD_M * WIDTH, _NORTH),
    "metres called degrees": _moved(_EAST, _NORTH, "EPSG:4326"),
    "degrees, x and y swapped": _degrees(53.2, 6.0),
    "degrees, sign of longitude lost": _degrees(-6.0, 53.2),
    "no coordinate system": lambda path: rewrite(path, crs=None),
    "a local coordinate system": lambda path: rewrite(path, crs=_LOCAL),
    "on the Moon": lambda path: rewrite(path, crs=_MOON, transform=Affine(2e-5, 0, 6.0048, 0, -2e-5, 53.2117)),
    "pixels of size 0": _as_vrt(f"{_EAST}, 0, 0, {_NORTH}, 0, 0"),
    "pixels of height 0": _as_vrt(f"{_EAST}, {GSD_M}, 0, {_NORTH}, 0, 0"),
    "a singular transform": _as_vrt(f"{_EAST}, 1, 2, {_NORTH}, 2, 4"),
    "a transform of NaN": _as_vrt("nan, nan, nan, nan, nan, nan"),
    "an origin at NaN": _as_vrt(f"nan, {GSD_M}, 0, {_NORTH}, 0, {-GSD_M}"),
    "an origin at infinity": _as_vrt(f"inf, {GSD_M}, 0, {_NORTH}, 0, {-GSD_M}"),
    "infinite pixels": _as_vrt(f"{_EAST}, inf, 0, {_NORTH}, 0, inf"),
    "pixels of 1e300 m": _as_vrt(f"{_EAST}, 1e300, 0, {_NORTH}, 0, -1e300"),
    "pixels of 1e-300 m": _as_vrt(f"{_EAST}, 1e-300, 0, {_NORTH}, 0, -1e-300"),
    "an unknown coordinate system": _as_vrt(f"{_EAST}, {GSD_M}, 0, {_NORTH}, 0, {-GSD_M}", srs="no such system"),
    "rotated and elsewhere": _rotated_away,
    "control points only": _control_points_only,
}


_NEEDED: dict[str, dict[str, tuple[str, ...] | None]] = {
    "optical: NaN only": {"--optical-range": ("0", "1")},
    "optical: infinity only": {"--optical-range": ("0", "1")},
    "optical: a cut JPEG": {"--sar": None},
    "SAR: a cut JPEG": {"--optical": None},
}
"""Without these the case would be refused for another reason than the one it is about."""


def raster_cases() -> list[BadCase]:
    """Return the cases whose rasters are wrong."""
    cases = []
    for role, name in (("optical", OPTICAL), ("SAR", SAR), ("cloud mask", CLOUDS)):
        always = {"--cloud-mask": ("{folder}/clouds.tif",)} if role == "cloud mask" else {}
        kinds = [_FILES]
        kinds += [_OPTICAL_VALUES, _PLACES] if role == "optical" else [_SAR_VALUES, _PLACES] if role == "SAR" else []
        for what, make in ((what, make) for kind in kinds for what, make in kind.items()):
            options = always | _NEEDED.get(f"{role}: {what}", {})
            cases.append(BadCase(f"{role}: {what}", name, _in_folder(name, make), options))
    return cases


def _in_folder(name: str, make: FileMaker) -> Maker:
    return lambda folder: make(folder / name)
