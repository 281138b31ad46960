"""A catalogue of input that `mmovseg predict` must refuse with one sentence: what is broken, and what that looks like.

Every case starts from the same three good files (`write_good_files`) and the same good command (`GOOD_COMMAND`), and
breaks one thing. The files live in `malformed_rasters`, the rest in `malformed_options`.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

Maker = Callable[[Path], None]
"""Breaks something in a folder that holds the good files."""

OPTICAL, SAR, CLOUDS, OUTPUT = "optical.tif", "sar.tif", "clouds.tif", "map.tif"
GOOD_COMMAND: dict[str, tuple[str, ...]] = {
    "--optical": ("{folder}/optical.tif",),
    "--sar": ("{folder}/sar.tif",),
    "--prompts": ("water, road",),
    "--output": ("{folder}/map.tif",),
    "--device": ("cpu",),
    "--quiet": (),
}
HEIGHT, WIDTH, GSD_M = 72, 88, 2.5
CRS_NAME = "EPSG:32632"
PLACE = Affine(GSD_M, 0.0, 300_000.0, 0.0, -GSD_M, 5_900_000.0)


@dataclass(frozen=True)
class BadCase:
    """One thing that is wrong.

    make: breaks the files; None leaves them good. options: changes to `GOOD_COMMAND`, None takes an option away;
    ``{folder}`` stands for the case's folder, ``{name}`` for
    its last part. extra: words before the options. word: what the
    sentence must hold.
    """

    name: str
    word: str
    make: Maker | None = None
    options: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    def arguments(self, folder: Path) -> list[str]:
        """Return the command line without the program's name."""
        words = list(self.extra)
        for option, values in ({**GOOD_COMMAND, **self.options}).items():
            if values is not None:
                words += [option, *values]
        return [word.replace("{folder}", str(folder)).replace("{name}", folder.name) for word in words]


def write_good_files(folder: Path) -> None:
    """Write an optical and a SAR raster of MiniEarth and a cloud mask on one grid, as GeoTIFFs that are not packed.

    Nothing is wrong with them, so that each case is refused for what it breaks.
    """
    from mmovseg.data.miniearth.world import render

    folder.mkdir(parents=True, exist_ok=True)
    scene = render("default", 0, 0, HEIGHT, WIDTH)
    clouds = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    clouds[10:30, 10:40] = 1
    for name, array in ((OPTICAL, scene.optical), (SAR, scene.sar), (CLOUDS, clouds)):
        write(folder / name, array)


def write(path: Path, array: np.ndarray, **profile: object) -> None:
    """Write (H, W, B) as a GeoTIFF on the grid of the good files, or on that of `profile`."""
    options = {"driver": "GTiff", "crs": CRS_NAME, "transform": PLACE, "dtype": array.dtype, "count": array.shape[2]}
    options |= {"height": array.shape[0], "width": array.shape[1], **profile}
    with rasterio.open(path, "w", **options) as file:
        file.write(np.ascontiguousarray(array.transpose(2, 0, 1)))


def read(path: Path) -> np.ndarray:
    """Return all bands of a raster, (H, W, B)."""
    with rasterio.open(path) as file:
        return np.asarray(file.read()).transpose(1, 2, 0)


def rewrite(path: Path, array: np.ndarray | None = None, **profile: object) -> None:
    """Write a raster anew with other values or another profile."""
    content = read(path) if array is None else array
    write(path, content, **profile)


def patch_tag(path: Path, tag: int, value: int | bytes | Sequence[float]) -> None:
    """Overwrite a tag of a little-endian classic TIFF in its first directory.

    Args:
        path: of the file.
        tag: number.
        value: a number goes in as LONG with count 1; bytes and doubles go to where the old values lie.
    """
    data = bytearray(path.read_bytes())
    assert data[:4] == b"II*\x00", f"{path} is no little-endian classic TIFF"
    entry = _find_entry(data, tag)
    if isinstance(value, int):
        struct.pack_into("<HII", data, entry + 2, 4, 1, value)
    else:
        content = value if isinstance(value, bytes) else struct.pack(f"<{len(value)}d", *value)
        (start,) = struct.unpack_from("<I", data, entry + 8)
        data[start : start + len(content)] = content
    path.write_bytes(data)


def _find_entry(data: bytearray, tag: int) -> int:
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for index in range(count):
        entry = directory + 2 + 12 * index
        if struct.unpack_from("<H", data, entry)[0] == tag:
            return entry
    raise ValueError(f"the file has no tag {tag}")


def copy_good_files(good: Path, folder: Path) -> None:
    """Copy the good files into a new folder."""
    folder.mkdir()
    for name in (OPTICAL, SAR, CLOUDS):
        shutil.copy(good / name, folder / name)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what lies in a folder, at any depth: name -> size and time of change; a folder counts as (-1, 0)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = os.lstat(path)
        found[str(path.relative_to(folder))] = (-1, 0) if path.is_dir() else (facts.st_size, facts.st_mtime_ns)
    return found


def catalogue() -> list[BadCase]:
    """Return all cases; their names differ.

    Raises:
        ValueError: two cases have one name.
    """
    from mmovseg.testing.malformed_options import option_cases
    from mmovseg.testing.malformed_rasters import raster_cases

    cases = [*raster_cases(), *option_cases()]
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"cases named twice: {', '.join(twice)}")
    return cases
