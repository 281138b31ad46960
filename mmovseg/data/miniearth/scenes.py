"""One large MiniEarth pair on disk: optical image (clear or clouded), SAR, label and cloud mask, in bounded memory.

The scene is written strip by strip, so its size is limited by the disk only, and every pixel is that of `render`. SAR
may lie on a grid of its own, as products of two agencies do: another coordinate system, a coarser pixel (averaged in
power), another footprint. The same arguments give the same bytes with the same GDAL, whatever the number of workers.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.transform import Affine, array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import aligned_target, calculate_default_transform
from rasterio.windows import Window
from tqdm import tqdm

from mmovseg.data.clouds import COVERED_ALPHA, CloudCover, CloudKindName, CloudSynthesizer
from mmovseg.data.miniearth.dataset import window_position
from mmovseg.data.miniearth.domain import Domain, get_domain
from mmovseg.data.miniearth.export import (
    CRS_NAME,
    check_free,
    describe_label,
    describe_sar,
    file_hashes,
    world_transform,
    write_json,
)
from mmovseg.data.miniearth.noise import Float
from mmovseg.data.miniearth.regions import CLASS_NAMES
from mmovseg.data.miniearth.world import VERSION, render
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.sar import SarUnit, convert_sar
from mmovseg.errors import UserError

BLOCK_PX = 512
_CACHE_BYTES = 64 * 2**20  # the environment of rasterio takes bytes
_BLOCKS_AHEAD = 16
_KINDS = ("optical", "label", "cloud_mask", "sar")


@dataclass(frozen=True)
class _Window:
    """A window of the world that is rendered once, and which rasters come out of it."""

    row: int
    col: int
    height: int
    width: int
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class _Look:
    """What every block of a window is rendered with; sent to the workers."""

    domain: Domain
    seed: int
    clouds: CloudCover | None


@dataclass(frozen=True)
class _Block:
    """Pixels of one block, (bands, h, w) each, and where in the window it lies."""

    place: Window
    layers: dict[str, NDArray[Any]]


def write_miniearth_scene(
    output: str | Path,
    *,
    height: int,
    width: int,
    domain: str | Domain = "default",
    seed: int = 0,
    clouds: CloudKindName = "clear",
    cloud_cover: float | None = None,
    sar_crs: str | None = None,
    sar_gsd_m: float | None = None,
    sar_shift_m: tuple[float, float] = (0.0, 0.0),
    workers: int = 1,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Write ``optical.tif``, ``sar.tif``, ``label.tif``, with clouds ``cloud_mask.tif`` (1 = covered), a manifest.

    The scene begins at the first pixel of the test split's area. The folder appears when it is complete. SAR on a grid
    of its own is rendered in power to a temporary file first (8 bytes a pixel of the scene for two polarisations), then
    warped by averaging; what the warped raster does not see is NaN.

    Args:
        output: folder to make; it must not exist or be empty.
        height: rows of the optical raster, at least 32.
        width: columns of the optical raster, at least 32.
        domain: name or value.
        seed: which world, and which clouds.
        clouds: kind of the clouds over the whole scene.
        cloud_cover: share of the scene that clouds cover, 0..1; None draws it from the range of the kind.
        sar_crs: coordinate system of the SAR raster, None for that of the optical one.
        sar_gsd_m: pixel size of the SAR raster in metres, None for that of the optical one.
        sar_shift_m: how far east and north the SAR footprint lies of the optical one, a whole number of pixels.
        workers: processes that render, at least 1.
        show_progress: draw a progress bar on stderr.

    Returns:
        The manifest.

    Raises:
        UserError: `output` holds something already or cannot be made, or an argument is not valid.
    """
    output, seen = Path(output), get_domain(domain)
    check_free(output)
    _check(height, width, workers, seen, sar_gsd_m)
    row, col = window_position("test", 0, BLOCK_PX, seen.gsd_m)[0], 0
    east, north = (_whole_pixels(metres, seen.gsd_m) for metres in sar_shift_m)
    warped = _sar_grid(row - north, col + east, height, width, seen, sar_crs, sar_gsd_m)
    cover = None
    if clouds != "clear":
        cover = CloudSynthesizer(kind=clouds, coverage=cloud_cover, seed=seed).cover(height, width)
    elif cloud_cover:
        raise UserError(f"a cloud cover of {cloud_cover} needs a kind of clouds: thin, thick or varied")
    first = ("optical", "label", "cloud_mask") if cover else ("optical", "label")
    windows = [_Window(row, col, height, width, first)]
    if (east, north) == (0, 0):
        windows = [replace(windows[0], kinds=(*first, "sar"))]
    else:
        windows.append(_Window(row - north, col + east, height, width, ("sar",)))
    sensor = replace(seen, value_type="linear") if warped else seen
    look = _Look(sensor, seed, cover)
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
            counts = _stream(partial, windows, look, workers, show_progress, raw_sar=warped is not None)
            if warped is not None:
                _warp_sar(partial, warped, seen)
        manifest = _manifest(partial, windows, seen, seed, clouds, counts)
        write_json(partial / "manifest.json", manifest)
        if output.exists():
            output.rmdir()
        os.replace(partial, output)
    except (OSError, RasterioError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"cannot write the MiniEarth scene to '{output}': {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _check(height: int, width: int, workers: int, domain: Domain, sar_gsd_m: float | None) -> None:
    if min(height, width) < 32:
        raise UserError(f"a MiniEarth scene is at least 32 pixels high and wide, got {height}x{width}")
    if workers < 1:
        raise UserError(f"the number of workers must be at least 1, got {workers}")
    if sar_gsd_m is not None and not domain.gsd_m <= sar_gsd_m <= 1000:
        raise UserError(f"the SAR pixel must be {domain.gsd_m} .. 1000 m wide, got {sar_gsd_m}")


def _whole_pixels(metres: float, gsd_m: float) -> int:
    pixels = metres / gsd_m
    if abs(pixels - round(pixels)) > 1e-6:
        raise UserError(f"the SAR footprint moves by whole pixels of {gsd_m} m, got {metres} m")
    return round(pixels)


@dataclass(frozen=True)
class _SarGrid:
    crs: CRS
    transform: Affine
    height: int
    width: int


def _sar_grid(
    row: int, col: int, height: int, width: int, domain: Domain, crs: str | None, gsd_m: float | None
) -> _SarGrid | None:
    """Return the grid onto which SAR is warped, or None when it lies on the pixels of the world."""
    if crs is None and (gsd_m is None or gsd_m == domain.gsd_m):
        return None
    if domain.value_type == "complex":
        raise UserError(
            "complex SAR values cannot be averaged in power: leave out the SAR grid, or take another domain"
        )
    world = CRS.from_string(CRS_NAME)
    try:
        target = world if crs is None else CRS.from_user_input(crs)
    except CRSError as error:
        raise UserError(f"'{crs}' is no coordinate system") from error
    if not target.is_projected:
        raise UserError(f"the SAR grid needs a coordinate system in metres, got '{crs}'")
    size = domain.gsd_m if gsd_m is None else gsd_m
    bounds = array_bounds(height, width, world_transform(row, col, domain.gsd_m))
    try:
        grid = calculate_default_transform(world, target, width, height, *bounds, resolution=size)
    except CRSError as error:
        raise UserError(f"the scene cannot be projected to '{crs}'") from error
    transform, columns, rows = aligned_target(*grid, resolution=size)
    return _SarGrid(target, transform, rows, columns)


def _stream(
    folder: Path, windows: list[_Window], look: _Look, workers: int, show_progress: bool, *, raw_sar: bool
) -> dict[str, NDArray[np.int64]]:
    """Render the windows and write them; return how often every label and every value of the cloud mask occurs."""
    counts = {"label": np.zeros(256, dtype=np.int64), "cloud_mask": np.zeros(256, dtype=np.int64)}
    pixels = sum(window.height * window.width for window in windows)
    with ExitStack() as stack:
        pool = None
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=context))
        bar = stack.enter_context(tqdm(total=pixels, unit="px", unit_scale=True, disable=not show_progress))
        for window in windows:
            with ExitStack() as files:
                rasters = {
                    kind: files.enter_context(_create(folder, kind, window, look.domain, raw_sar=raw_sar))
                    for kind in window.kinds
                }
                for block in _blocks(window, look, pool):
                    for kind, values in block.layers.items():
                        rasters[kind].write(values, window=block.place)
                        if kind in counts:
                            counts[kind] += np.bincount(values.ravel(), minlength=256)
                    bar.update(block.place.height * block.place.width)
    return counts


def _blocks(window: _Window, look: _Look, pool: Executor | None) -> Iterator[_Block]:
    """Yield the blocks of a window row by row; a pool works a bounded number of blocks ahead."""
    places = [
        (top, left, min(BLOCK_PX, window.height - top), min(BLOCK_PX, window.width - left))
        for top in range(0, window.height, BLOCK_PX)
        for left in range(0, window.width, BLOCK_PX)
    ]
    if pool is None:
        yield from (_render(window, look, place) for place in places)
        return
    waiting: deque[Future[_Block]] = deque()
    for place in places:
        waiting.append(pool.submit(_render, window, look, place))
        if len(waiting) > _BLOCKS_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _render(window: _Window, look: _Look, place: tuple[int, int, int, int]) -> _Block:
    top, left, height, width = place
    scene = render(look.domain, window.row + top, window.col + left, height, width, seed=look.seed)
    layers: dict[str, NDArray[Any]] = {"optical": scene.optical, "label": scene.label, "sar": scene.sar}
    if "cloud_mask" in window.kinds and look.clouds is not None:
        field = look.clouds.field(top, left, height, width)
        layers["optical"] = field.apply(scene.optical)
        layers["cloud_mask"] = (field.alpha > COVERED_ALPHA).astype(np.uint8)
    # bands first, and contiguous: that is how GDAL takes them and how they travel between processes
    shaped = {
        kind: np.ascontiguousarray(np.atleast_3d(layers[kind]).transpose(2, 0, 1))
        for kind in _KINDS
        if kind in window.kinds
    }
    return _Block(Window(left, top, width, height), shaped)


def _profile(height: int, width: int) -> dict[str, Any]:
    tiled = {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX}
    return {"driver": "GTiff", "height": height, "width": width, **tiled, "bigtiff": "if_safer"}


def _create(folder: Path, kind: str, window: _Window, domain: Domain, *, raw_sar: bool) -> DatasetWriter:
    profile = _profile(window.height, window.width)
    profile |= {"crs": CRS.from_string(CRS_NAME), "transform": world_transform(window.row, window.col, domain.gsd_m)}
    deflate = {"compress": "deflate", "zlevel": 1}
    if kind == "sar":
        profile |= {"count": len(domain.sar_channels), "dtype": "float32"}
        if raw_sar:
            return rasterio.open(folder / "sar_power.tif", "w", **profile)
        raster = rasterio.open(folder / "sar.tif", "w", predictor=3, **profile, **deflate)
        describe_sar(raster, domain)
    elif kind == "optical":
        profile |= {"count": 3, "dtype": "uint8", "photometric": "rgb", "predictor": 2}
        raster = rasterio.open(folder / "optical.tif", "w", **profile, **deflate)
        raster.descriptions = ("red", "green", "blue")
    elif kind == "label":
        raster = rasterio.open(
            folder / "label.tif", "w", count=1, dtype="uint8", nodata=IGNORE_LABEL, **profile, **deflate
        )
        describe_label(raster)
    else:
        raster = rasterio.open(folder / "cloud_mask.tif", "w", count=1, dtype="uint8", **profile, **deflate)
        raster.update_tags(value_0="clear", value_1="cloud")
    return raster


def _warp_sar(folder: Path, grid: _SarGrid, domain: Domain) -> None:
    """Average the power on the world's pixels onto the SAR grid, in the unit of the domain; remove the former."""
    profile = _profile(grid.height, grid.width)
    profile |= {"crs": grid.crs, "transform": grid.transform, "count": len(domain.sar_channels), "dtype": "float32"}
    options = {"compress": "deflate", "zlevel": 1, "predictor": 3, "nodata": math.nan}
    with (
        rasterio.open(folder / "sar_power.tif") as source,
        WarpedVRT(source, **_warp_options(grid)) as power,
        rasterio.open(folder / "sar.tif", "w", **profile, **options) as target,
    ):
        averaged = max(1.0, (grid.transform.a / domain.gsd_m) ** 2)
        describe_sar(target, domain, looks=round(domain.looks * averaged, 2))
        for _, place in target.block_windows(1):
            target.write(_to_unit(power.read(window=place), domain), window=place)
    (folder / "sar_power.tif").unlink()


def _warp_options(grid: _SarGrid) -> dict[str, Any]:
    return {
        "crs": grid.crs,
        "transform": grid.transform,
        "height": grid.height,
        "width": grid.width,
        "resampling": Resampling.average,
        "src_nodata": math.nan,
        "nodata": math.nan,
    }


def _to_unit(power: Float, domain: Domain) -> Float:
    unit: SarUnit = "db" if domain.value_type == "db" else "linear"
    if domain.value_type == "amplitude8":
        unit = "amplitude8"
    return convert_sar(power, unit_in="linear", unit_out=unit)


def _manifest(
    folder: Path,
    windows: list[_Window],
    domain: Domain,
    seed: int,
    clouds: str,
    counts: dict[str, NDArray[np.int64]],
) -> dict[str, Any]:
    first = windows[0]
    pixels = first.height * first.width
    grids = {}
    for name in ("optical", "sar"):
        with rasterio.open(folder / f"{name}.tif") as raster:
            grids[name] = _grid_facts(raster)
    return {
        "name": "MiniEarth",
        "version": VERSION,
        "seed": seed,
        "world": {"row": first.row, "col": first.col, "height": first.height, "width": first.width},
        "gsd_m": domain.gsd_m,
        "domain": domain.to_dict(),
        "classes": list(CLASS_NAMES),
        "ignore_label": IGNORE_LABEL,
        "class_share": {name: round(float(counts["label"][i] / pixels), 6) for i, name in enumerate(CLASS_NAMES)},
        "clouds": clouds,
        "cloud_cover": round(float(counts["cloud_mask"][1] / pixels), 6),
        "grids": grids,
        "splits": {},
        "files": file_hashes(folder),
    }


def _grid_facts(raster: DatasetReader) -> dict[str, Any]:
    return {
        "crs": raster.crs.to_string(),
        "transform": list(raster.transform)[:6],
        "height": raster.height,
        "width": raster.width,
    }
