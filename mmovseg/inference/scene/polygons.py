"""Polygons of a map: a GeoPackage in its own coordinate system, or GeoJSON in longitude and latitude."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.warp import transform as reproject

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.inference.area import HECTARE_M2, row_pixel_areas
from mmovseg.inference.grid import map_point
from mmovseg.inference.scene.cog import CACHE_BYTES
from mmovseg.inference.scene.disk import GDAL_ERRORS, check_target, writing
from mmovseg.inference.scene.outlines import Outlines, outlines
from mmovseg.inference.scene.parts import PLAN_TAG

_GEOPACKAGE, _GEOJSON = (".gpkg",), (".geojson", ".json")
_BATCH_CORNERS = 500_000
_LONLAT = "EPSG:4326"
_LONLAT_DECIMALS = 7  # a centimetre
_LONGEST_EDGE_PX = 256.0  # of polygons that change their coordinate system, in which a straight line is not straight
_FIXED_TIME = "2000-01-01T00:00:00.000Z"  # the same polygons give the same file
_PYOGRIO_ERRORS = (DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError)


@dataclass(frozen=True)
class _Ground:
    """What turns pixel numbers into places and areas.

    Args:
        crs: of the map.
        transform: of the map.
        square_metres: (H + 1,) of a column of pixels from the top of the map to each row; None where unknown.
    """

    crs: CRS | None
    transform: Affine
    square_metres: np.ndarray | None

    def areas_m2(self, polygons: np.ndarray) -> np.ndarray:
        """Return the exact area: where rows differ in size, y is replaced by the area above it."""
        table = self.square_metres
        if table is None:
            return np.full(len(polygons), np.nan)
        rows = shapely.transform(polygons, lambda xy: np.stack([xy[:, 0], table[xy[:, 1].astype(np.int64)]], axis=1))
        return shapely.area(rows)

    def pixel_m(self) -> float:
        """Return the side of a pixel in the middle of the raster."""
        assert self.square_metres is not None
        return float(np.sqrt(np.diff(self.square_metres)[(len(self.square_metres) - 1) // 2]))

    def place(self, polygons: np.ndarray) -> np.ndarray:
        return shapely.transform(polygons, lambda xy: np.stack(map_point(self.transform, xy[:, 0], xy[:, 1]), axis=1))


def check_polygon_path(
    path: str | Path, *, inputs: Sequence[str | Path] = (), overwrite: bool = False, plan: str | None = None
) -> None:
    """Refuse a file of polygons that could not be written, before anything is computed.

    Args:
        path: ends in .gpkg, .geojson or .json.
        inputs: files that may not be written over.
        overwrite: whatever is there may be replaced.
        plan: of the map (`PartStore.digest`), whose own polygons may be replaced; None stands for any map.

    Raises:
        UserError: another ending, a folder or an input has that name, something else than such polygons is there, or
            its folder cannot be made.
    """
    path = Path(path)
    if path.suffix.lower() not in _GEOPACKAGE + _GEOJSON:
        raise UserError(f"polygons are written as .gpkg or .geojson, but --polygons is '{path}'")
    check_target(path, inputs)
    if path.exists() and not overwrite:
        found = _plan_of(path)
        if found is None or plan not in (None, found):
            raise UserError(
                f"'{path}' exists and does not hold polygons of this map; "
                "give --overwrite to replace it, or another name"
            )


def write_polygons(
    label_path: str | Path,
    output: str | Path,
    vocabulary: Vocabulary,
    *,
    min_area_m2: float = 0.0,
    simplify_m: float = 0.0,
) -> Path:
    """Write the areas of a map as polygons with the attributes class, value and area_ha.

    Pixels of one class that share an edge make one polygon. Memory holds a strip of the map and the areas that are open
    at its edge. A large area that surrounds many others is therefore in memory as a whole.

    Args:
        label_path: one band of class ids with a nodata value, as `PartStore` writes it.
        output: ``.gpkg`` (coordinate system of the map) or ``.geojson`` (longitude and latitude, RFC 7946).
        vocabulary: its classes, id = position.
        min_area_m2: smaller polygons are left out; where they were, their neighbours keep a hole.
        simplify_m: an outline moves by at most so much, each polygon for itself, so that neighbours may overlap or
            leave a gap of that size. area_ha stays that of the pixels.

    Returns:
        `output`.

    Raises:
        UserError: the map cannot be read, the file cannot be written, areas are wanted where they are unknown, or
            GeoJSON of a map without coordinate system.
    """
    output = Path(output)
    check_polygon_path(output, inputs=[label_path], overwrite=True)
    with _opened(label_path) as source:
        ground = _ground(source, str(label_path), needed=bool(min_area_m2 or simplify_m))
        with _sink(output, ground, source.tags().get(PLAN_TAG, "")) as sink:
            for values, polygons in _batches(_areas(source, str(label_path))):
                square_metres = ground.areas_m2(polygons)
                large = ~(square_metres < min_area_m2)  # unknown areas stay
                values, polygons, square_metres = values[large], polygons[large], square_metres[large]
                if simplify_m:
                    polygons = shapely.simplify(polygons, simplify_m / ground.pixel_m(), preserve_topology=True)
                names = np.array([vocabulary.names[value] for value in values], dtype=object)
                sink.add(polygons, names, values, square_metres / HECTARE_M2)
    return output


class _Sink(ABC):
    """A file that takes polygons, some at a time."""

    def __init__(self, path: Path, ground: _Ground, plan: str) -> None:
        self.path, self.ground, self.plan = path, ground, plan
        self.count = 0

    @abstractmethod
    def add(self, polygons: np.ndarray, names: np.ndarray, values: np.ndarray, hectares: np.ndarray) -> None:
        """Write (N,) polygons in pixel numbers with their attributes; hectares are NaN where unknown."""

    @abstractmethod
    def end(self) -> None:
        """Write what is still to be written."""


class _GeoPackage(_Sink):
    def add(self, polygons: np.ndarray, names: np.ndarray, values: np.ndarray, hectares: np.ndarray) -> None:
        if len(polygons) or not self.count:
            self._write(polygons, names, values, hectares)
            self.count += len(polygons)

    def _write(self, polygons: np.ndarray, *columns: np.ndarray) -> None:
        appends = self.path.exists()
        options: dict[str, Any] = {} if appends else {"layer_metadata": {PLAN_TAG: self.plan}}
        try:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _FIXED_TIME})
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*'crs' was not provided.*")
                pyogrio.raw.write(
                    self.path,
                    shapely.to_wkb(self.ground.place(polygons)),
                    list(columns),
                    ["class", "value", "area_ha"],
                    driver="GPKG",
                    layer="polygons",
                    geometry_type="Polygon",
                    crs=self.ground.crs.to_wkt() if self.ground.crs else None,
                    append=appends,
                    **options,
                )
        except _PYOGRIO_ERRORS as error:
            raise OSError(str(error)) from error
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})

    def end(self) -> None:
        # A disk that ran full is not always reported when it happens.
        try:
            found = pyogrio.read_info(self.path, force_feature_count=True)["features"]
        except _PYOGRIO_ERRORS as error:
            raise OSError(str(error)) from error
        if found != self.count:
            raise OSError(f"only {found} of {self.count} polygons arrived")


class _GeoJSON(_Sink):
    def __init__(self, path: Path, ground: _Ground, plan: str) -> None:
        super().__init__(path, ground, plan)
        self._append(f'{{"type": "FeatureCollection",\n"{PLAN_TAG}": {json.dumps(plan)},\n"features": [\n')

    def add(self, polygons: np.ndarray, names: np.ndarray, values: np.ndarray, hectares: np.ndarray) -> None:
        placed = _to_lonlat(self.ground.place(shapely.segmentize(polygons, _LONGEST_EDGE_PX)), self.ground.crs)
        features = []
        for text, name, value, area in zip(shapely.to_geojson(placed), names, values, hectares, strict=True):
            facts = {"class": name, "value": int(value), "area_ha": None if np.isnan(area) else float(area)}
            features.append(f'{{"type": "Feature", "properties": {json.dumps(facts)}, "geometry": {text}}}')
        if features:
            self._append((",\n" if self.count else "") + ",\n".join(features))
            self.count += len(features)

    def end(self) -> None:
        self._append("\n]}\n")

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _sink(output: Path, ground: _Ground, plan: str) -> Iterator[_Sink]:
    """Give a file to fill, which becomes `output` at the end, or vanishes when the block raises."""
    if output.suffix.lower() in _GEOJSON:
        if ground.crs is None:
            raise UserError(
                f"the map for '{output}' has no coordinate reference system, so its polygons have no longitude and "
                "latitude; write them as .gpkg"
            )
        kind: type[_Sink] = _GeoJSON
    else:
        kind = _GeoPackage
    work = output.with_name(f".{output.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with writing(output):
            work.mkdir(parents=True)
            sink = kind(work / output.name, ground, plan)
            yield sink
            sink.end()
            (work / output.name).replace(output)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _to_lonlat(polygons: np.ndarray, crs: CRS | None) -> np.ndarray:
    """Bring polygons to longitude and latitude, outer rings anticlockwise, cut where they cross the date line."""

    def convert(xy: np.ndarray) -> np.ndarray:
        longitude, latitude = reproject(crs, _LONLAT, xy[:, 0], xy[:, 1])
        return np.stack([np.asarray(longitude), np.asarray(latitude)], axis=1)

    placed = shapely.transform(polygons, convert)
    bounds = shapely.bounds(placed)
    if not np.isfinite(bounds).all():
        raise UserError(f"a place of the map has no longitude and latitude in '{crs}'; write the polygons as .gpkg")
    for index in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180.0):
        placed[index] = _cut_at_date_line(placed[index])
    placed = shapely.transform(placed, lambda xy: np.round(xy, _LONLAT_DECIMALS))
    return shapely.reverse(shapely.normalize(placed))


def _cut_at_date_line(polygon: Any) -> Any:
    whole = shapely.transform(polygon, lambda xy: np.stack([xy[:, 0] % 360.0, xy[:, 1]], axis=1))
    east = shapely.intersection(whole, shapely.box(0.0, -90.0, 180.0, 90.0))
    west = shapely.intersection(whole, shapely.box(180.0, -90.0, 360.0, 90.0))
    west = shapely.transform(west, lambda xy: xy - np.array([360.0, 0.0]))
    return shapely.multipolygons([part for part in shapely.get_parts([east, west]) if part.geom_type == "Polygon"])


def _batches(found: Iterator[Outlines]) -> Iterator[Outlines]:
    """Gather small portions, so that a file is opened less often; at least one portion comes, perhaps an empty one."""
    waiting: list[Outlines] = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=object))]
    corners = 0
    for values, polygons in found:
        waiting.append((values, polygons))
        corners += int(shapely.get_num_coordinates(polygons).sum())
        if corners > _BATCH_CORNERS:
            yield np.concatenate([item[0] for item in waiting]), np.concatenate([item[1] for item in waiting])
            waiting, corners = [], 0
    if waiting:
        yield np.concatenate([item[0] for item in waiting]), np.concatenate([item[1] for item in waiting])


def _areas(source: rasterio.DatasetReader, name: str) -> Iterator[Outlines]:
    try:
        yield from outlines(source)
    except GDAL_ERRORS as error:
        raise UserError(f"map '{name}' is damaged or cut off: its pixels cannot be read") from error


@contextmanager
def _opened(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            source = rasterio.open(path)
        except GDAL_ERRORS as error:
            raise UserError(f"map '{path}' cannot be opened: it is missing, damaged, or no raster") from error
        with source:
            yield source


def _ground(source: rasterio.DatasetReader, name: str, *, needed: bool) -> _Ground:
    try:
        rows = row_pixel_areas(source.shape, crs=source.crs, transform=source.transform, source=name)
    except UserError:
        if needed:
            raise
        rows = None
    table = None if rows is None else np.concatenate([[0.0], np.cumsum(rows)])
    return _Ground(source.crs, source.transform, table)


def _plan_of(path: Path) -> str | None:
    """Return the mark of the map that a file of polygons was made from, None when it is of another kind."""
    if path.suffix.lower() in _GEOJSON:
        with path.open("rb") as file:
            head = file.read(512).decode("utf-8", errors="replace").splitlines()
        line = next((line for line in head if line.startswith(f'"{PLAN_TAG}": ')), None)
        return None if line is None else str(json.loads(line.split(": ", 1)[1].rstrip(",")))
    try:
        metadata = pyogrio.read_info(path)["layer_metadata"] or {}
    except _PYOGRIO_ERRORS:
        return None
    return metadata.get(PLAN_TAG)
