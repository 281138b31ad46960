"""The rasters of a scene on one grid: what `predict_scene` reads, window by window."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import MODALITIES, Modality
from mmovseg.data.sar import SarUnit
from mmovseg.errors import UserError
from mmovseg.inference.grid import Grid
from mmovseg.inference.scene.contract_check import check_values
from mmovseg.inference.scene.opening import open_clouds, open_optical, open_place, open_sar
from mmovseg.inference.scene.placement import check_together, placed_grid, raster_facts
from mmovseg.inference.scene.sampler import Lattice, Sampler
from mmovseg.inference.scene.sources import CloudSource, OpticalSource, Placed, PlaceSource, SarSource, Source
from mmovseg.inference.scene.warp import PixelMap

GDAL_CACHE_MIB = 128
GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": GDAL_CACHE_MIB << 20,  # the default is a share of all memory
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",  # or a cut-off JPEG is grey
    "GDAL_VRT_ENABLE_PYTHON": "NO",  # a raster must not run code
}


@dataclass(frozen=True)
class SceneInputs:
    """The rasters of a scene and how to read them. All of it survives a trip through JSON.

    optical, sar, cloud_mask: paths of anything that rasterio opens; at least one of the first two. The mask is not 0
        where the optical raster shows cloud.
    optical_bands: 1-based red, green and blue band; None = as the file says, see `mmovseg.data.io.read_optical`.
    optical_range: black and white, as stored or, where the file declares a scale, as scaled. optical_nodata: stored
        value that means no data where all bands hold it.
    sar_bands: 1-based, in the order of the model; None = by name where the file names its bands, else all.
    sar_unit: of the file; None = what it says, else the model's. sar_nodata: value that means no data.
    optical_resampling, sar_resampling: ``nearest``, ``bilinear``, ``average``; None = bilinear, and along axes where
        the raster is 1.5 times finer than what is asked for, average.
    """

    optical: str | None = None
    sar: str | None = None
    cloud_mask: str | None = None
    optical_bands: tuple[int, ...] | None = None
    optical_range: tuple[float, float] | None = None
    optical_nodata: float | None = None
    sar_bands: tuple[int, ...] | None = None
    sar_unit: SarUnit | None = None
    sar_nodata: float | None = None
    optical_resampling: str | None = None
    sar_resampling: str | None = None


@dataclass
class WindowData:
    """A window of a scene, all of one size (h, w).

    optical: (h, w, B) on the 0..255 scale, uint8 where the file is and nothing was scaled or resampled, else float32;
        0 where not valid; None when no optical raster is read. optical_valid: (h, w) bool, all False then.
    sar: (h, w, P) float32 in the unit of the model, NaN where not valid; None when no SAR raster is read. sar_valid:
        (h, w) bool.
    clouded: (h, w) bool; None without a cloud mask.

    Arrays may be views with bands first in memory.
    """

    optical: np.ndarray | None
    optical_valid: np.ndarray
    sar: np.ndarray | None
    sar_valid: np.ndarray
    clouded: np.ndarray | None = None


class ScenePair:
    """The rasters of a scene on the grid of the map; a context manager.

    The map has the grid of the optical raster, or of the SAR raster when there is no optical one. The other raster is
    warped to it while windows are read. A pixel of a window of whole pixels has one value, to the last bit, whichever
    window it is read in. One thread may read at a time; it need not be the one that opened the rasters.

    Args:
        inputs: the rasters.
        contract: of the model; None checks nothing and takes polarisations and units as they come.
        modality: ``optical`` or ``sar`` leaves the pixels of the other raster alone; an optical raster still gives the
            grid.
        override_contract: say what does not fit the contract in `warnings` instead of refusing it.

    Attributes:
        grid: of the map.
        facts: what was found, for reports: CRS, sizes, bands, unit, share of the map that both cover, warnings.
        identity: what the pixels depend on: files with size and time, and how they are read.
        warnings: sentences for the user.

    Raises:
        UserError: on entering: a raster is unusable, the two cannot be laid over each other, or they do not fit the
            contract.
    """

    grid: Grid
    facts: dict[str, Any]
    identity: dict[str, Any]
    warnings: list[str]

    def __init__(
        self,
        inputs: SceneInputs,
        *,
        contract: InputContract | None = None,
        modality: Modality = "both",
        override_contract: bool = False,
    ) -> None:
        if modality not in MODALITIES:
            raise UserError(f"modality is '{modality}', it must be one of {', '.join(MODALITIES)}")
        self.inputs, self.contract, self.modality = inputs, contract, modality
        self.override_contract = override_contract

    def __enter__(self) -> ScenePair:
        self.warnings = []
        with ExitStack() as stack:
            stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        inputs, contract = self.inputs, self.contract
        sources: dict[str, Source] = {}
        self._optical: OpticalSource | None = None
        self._sar: SarSource | None = None
        place: PlaceSource | None = None
        if inputs.optical is not None and self._is_read("optical"):
            sources["optical"] = self._optical = open_optical(stack, inputs, contract, warnings=self.warnings)
        elif inputs.optical is not None and (inputs.sar is None or self._is_read("sar")):
            place = open_place(stack, inputs.optical)
        if inputs.sar is not None and self._is_read("sar"):
            sources["sar"] = self._sar = open_sar(stack, inputs, contract, warnings=self.warnings)
        if not sources:
            raise UserError(self._nothing_to_read())
        if inputs.cloud_mask is not None:
            sources["cloud_mask"] = open_clouds(stack, inputs.cloud_mask)
        self.grid = placed_grid((self._optical or place or sources["sar"]).raster)
        maps = {name: check_together(self.grid, source, warnings=self.warnings) for name, source in sources.items()}
        self._samplers = self._make_samplers(sources, maps)
        check_values(
            self._optical,
            self._sar,
            contract=contract,
            inputs=inputs,
            override=self.override_contract,
            warnings=self.warnings,
        )
        self.facts = self._collect_facts(sources, maps)
        self.identity = self._identify({**sources, **({} if place is None else {"place": place})})

    def _is_read(self, sensor: Modality) -> bool:
        """Whether the user and the model want the pixels of a sensor."""
        wanted = self.modality in ("both", sensor)
        return wanted and (self.contract is None or getattr(self.contract, sensor) is not None)

    def _nothing_to_read(self) -> str:
        names = {"optical": "an optical raster", "sar": "a SAR raster"}
        readable = [name for sensor, name in names.items() if self._is_read(sensor)]  # type: ignore[arg-type]
        if not readable:
            return f"the model does not read what modality '{self.modality}' leaves; choose another modality"
        return f"there is no raster to map for modality '{self.modality}' and this model; give {' or '.join(readable)}"

    def _make_samplers(self, sources: dict[str, Source], maps: dict[str, PixelMap]) -> dict[str, Sampler]:
        resampling = {"optical": self.inputs.optical_resampling, "sar": self.inputs.sar_resampling}
        return {
            name: Sampler(
                source, maps[name], resampling=resampling.get(name), any_counts=isinstance(source, CloudSource)
            )
            for name, source in sources.items()
        }

    def _collect_facts(self, sources: dict[str, Source], maps: dict[str, PixelMap]) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "crs": str(self.grid.crs) if self.grid.crs else None,
            "gsd_m": self.grid.gsd_m(),
            "height": self.grid.height,
            "width": self.grid.width,
            "transform": list(self.grid.transform)[:6],
        }
        for name, source in sources.items():
            sampler = self._samplers[name]
            facts[name] = raster_facts(source, maps[name]) | {"samples_per_pixel": list(sampler.samples_per_pixel())}
        if self.inputs.optical is not None and "sar" in sources:
            facts["overlap_share"] = facts["sar"]["covers"]
        facts["warnings"] = list(self.warnings)
        return facts

    def _identify(self, sources: Mapping[str, Placed]) -> dict[str, Any]:
        """What decides the pixels; a file that is written again gets another time."""
        identity: dict[str, Any] = {
            "files": {name: _files(source) for name, source in sources.items()},
            "bands": {name: list(source.bands) for name, source in sources.items()},
            "read_as": {name: _declared(source) for name, source in sources.items()},
            "modality": self.modality,
        }
        if self._sar is not None:
            identity["sar_unit"] = [self._sar.unit, self._sar.unit_out]
        options = asdict(self.inputs)
        for name in ("optical", "sar", "cloud_mask", "optical_bands", "sar_bands", "sar_unit"):
            del options[name]
        return identity | {name: _jsonable(value) for name, value in options.items()}

    def read(
        self, row: int, col: int, height: int, width: int, *, out_shape: tuple[int, int] | None = None
    ) -> WindowData:
        """Read a window.

        Args:
            row, col, height, width: in pixels of the map, inside it.
            out_shape: (h, w) that the window is resampled to straight from the rasters; None = its own size.

        Raises:
            UserError: a raster is damaged.
            ValueError: the window reaches over the edge of the map.
        """
        if min(row, col) < 0 or min(height, width) <= 0:
            raise ValueError(f"window {(row, col, height, width)} is not inside the map")
        if row + height > self.grid.height or col + width > self.grid.width:
            raise ValueError(f"window {(row, col, height, width)} is not inside {self.grid.height}x{self.grid.width}")
        h, w = out_shape or (height, width)
        lattice = Lattice(row, col, height, width, h, w)
        none = np.zeros((h, w), dtype=bool)
        data = WindowData(None, none, None, none)
        with rasterio.Env(**GDAL_OPTIONS):  # an environment belongs to a thread
            if self._optical is not None:
                data.optical, data.optical_valid = self._read_optical(self._optical, lattice)
            if self._sar is not None:
                values, data.sar_valid = self._samplers["sar"].read(lattice)
                if not data.sar_valid.all():
                    values[:, ~data.sar_valid] = np.nan
                data.sar = values.transpose(1, 2, 0)
            if "cloud_mask" in self._samplers:
                data.clouded = self._samplers["cloud_mask"].read(lattice)[0][0] > 0
        return data

    def _read_optical(self, source: OpticalSource, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
        sampler = self._samplers["optical"]
        if sampler.is_direct(lattice):  # it has the grid of the map
            return source.pixels(int(lattice.row), int(lattice.column), lattice.h, lattice.w)
        values, valid = sampler.read(lattice)
        return values.transpose(1, 2, 0), valid


def _files(source: Placed) -> list[list[Any]]:
    """Return path, size and time of the files a raster is made of, but for side files that other programs may add."""
    raster = source.raster
    paths = [raster.path, *sorted(_files_behind(raster.source.files) - {raster.path})]
    kept = [path for path in paths if not path.lower().endswith((".aux.xml", ".ovr"))]
    return [[os.path.abspath(path), *_size_and_time(path)] for path in kept]


def _files_behind(paths: Iterable[str]) -> set[str]:
    """Add what virtual rasters among `paths` are made of, since GDAL names the files of the first one only."""
    found, new = set(), set(paths)
    while new:
        found |= new
        inside: set[str] = set()
        for path in new:
            if path.lower().endswith(".vrt"):
                with suppress(RasterioError), rasterio.open(path) as virtual:
                    inside |= set(virtual.files)
        new = inside - found
    return found


def _declared(source: Placed) -> dict[str, Any]:
    """Return what a raster says about its pixels, wherever it says so: a side file (.aux.xml) may overrule it."""
    raster = source.raster.source
    return {
        "nodata": [_jsonable(value) for value in raster.nodatavals],
        "scales": [_jsonable(value) for value in raster.scales],
        "offsets": [_jsonable(value) for value in raster.offsets],
        "colors": [color.name for color in raster.colorinterp],
        "masks": [[flag.name for flag in flags] for flags in raster.mask_flag_enums],
        "crs": raster.crs.to_wkt() if raster.crs else None,
        "transform": [_jsonable(value) for value in raster.transform[:6]],
    }


def _size_and_time(path: str) -> tuple[int | None, int | None]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None, None
    return status.st_size, status.st_mtime_ns


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # NaN would not even equal itself
    return list(value) if isinstance(value, tuple) else value
