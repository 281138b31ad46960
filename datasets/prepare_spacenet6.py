#!/usr/bin/env python
"""SpaceNet 6 -> <output>/spacenet6/<split>/{optical,sar,label}: buildings of Rotterdam, 900 px tiles of 0.5 m.

The download is SN6_buildings_AOI_11_Rotterdam_train.tar.gz (spacenet.ai, SpaceNet 6), as it is or unpacked. Below
train/AOI_11_Rotterdam, with <id> = <strip start>_<strip end>_tile_<n>:

    PS-RGB/SN6_Train_AOI_11_Rotterdam_PS-RGB_<id>.tif                   RGB, 8 bit
    SAR-Intensity/SN6_Train_AOI_11_Rotterdam_SAR-Intensity_<id>.tif     HH HV VH VV, float32
    geojson_buildings/SN6_Train_AOI_11_Rotterdam_Buildings_<id>.geojson footprints
    SummaryData/SAR_orientations.txt                                    <strip start>_<strip end> 0|1

- label: 1 where the centre of a pixel lies in a footprint, else 0; 255 where SAR or optical have no data, since the
  footprints end there.
- sar: as stored, logarithmic with an offset that the publishers do not state (so not sigma nought); NaN where all four
  bands are 0 or one is not a number. `--sar-unit linear` turns linear power into dB, for intensities of one's own.
- split: by place, because 202 flights pass over the same ground and one strip or a random share of tiles would show the
  test buildings to training. Tiles whose west edge lies at or east of `--border` (UTM easting) are val, those wholly
  west of it are train, those across it are left out. The default is where the organisers' baseline begins its
  validation part. SpaceNet's own test tiles come without optical image and labels, so they are not used.

    datasets/prepare_spacenet6.py --source SN6_buildings_AOI_11_Rotterdam_train.tar.gz --workers 8
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.features import is_valid_geom, rasterize
from rasterio.warp import transform_geom

from mmovseg.data.prepare import (
    Layer,
    TileJob,
    find_folder,
    index_by_stem,
    open_download,
    prepare_dataset,
    prepare_parser,
    read_layer,
)
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.sar import SarUnit, convert_sar
from mmovseg.errors import UserError, exit_on_user_error

POLARISATIONS = ("HH", "HV", "VH", "VV")
BORDER_EASTING = 595_310.0
"""UTM 31N, m: the organisers' baseline cuts 591,550 to 596,250 into five parts and validates on the last."""

ORIENTATIONS = {"north": 0, "south": 1}
_FOLDERS = ("optical", "sar", "label")
_PREFIX = "SN6_Train_AOI_11_Rotterdam_"
_LONLAT = CRS.from_epsg(4326)  # what GeoJSON says where the file does not


def make_tile(*, optical: Path, sar: Path, footprints: Path, sar_unit: SarUnit) -> dict[str, Layer]:
    """Return the layers of one tile.

    Raises:
        UserError: a file is missing or damaged, the SAR has not four bands, or has no coordinate system.
    """
    image, radar = read_layer(optical, bands=(1, 2, 3)), read_layer(sar)
    if radar.array.ndim != 3 or radar.array.shape[2] != len(POLARISATIONS):
        bands = 1 if radar.array.ndim == 2 else radar.array.shape[2]
        raise UserError(f"SAR raster '{sar}' has {bands} bands; four were expected ({', '.join(POLARISATIONS)})")
    if radar.crs is None or radar.transform is None:
        raise UserError(f"SAR raster '{sar}' has no coordinate system, so the footprints cannot be placed on it")
    values = radar.array.astype(np.float32)
    has_sar = np.isfinite(values).all(axis=2) & (values != 0).any(axis=2)
    has_optical = (image.array != 0).any(axis=2)
    label = draw_footprints(footprints, radar)
    if label.shape == has_optical.shape:  # else the job names the sizes
        label[~(has_sar & has_optical)] = IGNORE_LABEL
    values = convert_sar(values, unit_in=sar_unit, unit_out="db")
    values[~has_sar] = np.nan
    return {
        "optical": Layer(image.array, image.crs, image.transform, nodata=0),
        "sar": Layer(values, radar.crs, radar.transform, nodata=float("nan"), band_names=POLARISATIONS),
        "label": radar.with_array(label),
    }


def draw_footprints(path: Path, grid: Layer) -> np.ndarray:
    """Draw the polygons of a GeoJSON file on the grid of a raster.

    Args:
        path: a FeatureCollection of Polygons and MultiPolygons, possibly empty; coordinates are in the system of its
            member "crs", else in longitude and latitude, as GeoJSON says.
        grid: with `crs` and `transform`.

    Returns:
        (H, W) uint8: 1 where the centre of the pixel lies within a polygon, else 0.

    Raises:
        UserError: the file is missing, is no such GeoJSON, or has an unknown coordinate system.
    """
    content = _read_json(path)
    crs = _crs_of(content, path)
    geometries = [feature.get("geometry") for feature in content["features"]]
    polygons = [geometry for geometry in geometries if geometry and geometry.get("coordinates")]
    for geometry in polygons:
        if geometry.get("type") not in ("Polygon", "MultiPolygon") or not is_valid_geom(geometry):
            raise UserError(f"file '{path}' has a geometry that is no polygon: {geometry.get('type')}")
    if crs != grid.crs:
        polygons = [transform_geom(crs, grid.crs, geometry) for geometry in polygons]
    if not polygons:
        return np.zeros(grid.size, dtype=np.uint8)
    return np.asarray(rasterize(polygons, out_shape=grid.size, transform=grid.transform, dtype="uint8"))


def read_orientations(path: Path) -> dict[str, int]:
    """Return 0 (seen from the north) or 1 (from the south) for each flight strip, ``<start>_<end>``.

    Raises:
        UserError: the file cannot be read or a line is not ``<start>_<end> 0|1``.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"file '{path}' cannot be read: {error.strerror}") from error
    table = {}
    for line in filter(None, map(str.strip, lines)):
        strip, _, flag = line.partition(" ")
        if flag.strip() not in ("0", "1"):
            raise UserError(f"file '{path}' has the line '{line}'; expected '<start>_<end> 0' or '1'")
        table[strip] = int(flag)
    return table


def strip_of(stem: str) -> str:
    """Return the flight strip of a tile: ``<start>_<end>_tile_<n>`` -> ``<start>_<end>``."""
    return stem.partition("_tile_")[0]


def split_by_easting(files: dict[str, Path], border: float) -> dict[str, list[str]]:
    """Sort tiles into west (train) and east (val) of a border; those across it are in neither list.

    Raises:
        UserError: a raster is damaged, or one of the two lists is empty.
    """
    splits: dict[str, list[str]] = {"train": [], "val": []}
    for stem, path in files.items():
        west, east = _west_and_east(path)
        if west >= border:
            splits["val"].append(stem)
        elif east <= border:
            splits["train"].append(stem)
    for split, stems in splits.items():
        if not stems:
            raise UserError(
                f"no tile lies {'east' if split == 'val' else 'west'} of --border {border:g}: {split} is empty"
            )
    return splits


def _west_and_east(path: Path) -> tuple[float, float]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                return float(source.bounds.left), float(source.bounds.right)
    except RasterioError as error:
        raise UserError(f"raster '{path}' is damaged, cut off, or not a raster") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"file '{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"file '{path}' is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("features"), list):
        raise UserError(f"file '{path}' is no GeoJSON FeatureCollection")
    return content


def _crs_of(content: dict[str, Any], path: Path) -> CRS:
    if not content.get("crs"):
        return _LONLAT
    try:
        return CRS.from_user_input(content["crs"]["properties"]["name"])
    except (KeyError, TypeError, CRSError) as error:
        raise UserError(f"file '{path}' has an unknown coordinate system: {content['crs']}") from error


def _select_orientation(stems: Iterable[str], wanted: str, roots: Sequence[Path]) -> list[str]:
    """Keep the tiles that were seen from one side."""
    path = find_folder(roots, "SummaryData", what="the folder of SAR_orientations.txt") / "SAR_orientations.txt"
    table = read_orientations(path)
    kept = []
    for stem in stems:
        if strip_of(stem) not in table:
            raise UserError(f"file '{path}' does not list the strip '{strip_of(stem)}' of tile '{stem}'")
        if table[strip_of(stem)] == ORIENTATIONS[wanted]:
            kept.append(stem)
    return kept


def _check_partners(stems: Iterable[str], **others: dict[str, Path]) -> None:
    for stem in stems:
        for what, files in others.items():
            if stem not in files:
                raise UserError(f"tile '{stem}' has no {what} file beside its SAR file")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = prepare_parser(__doc__)
    parser.add_argument(
        "--border", type=float, default=BORDER_EASTING, metavar="M", help="easting between train and val"
    )
    parser.add_argument(
        "--orientation", choices=("both", *ORIENTATIONS), default="both", help="side the radar looked from"
    )
    parser.add_argument(
        "--sar-unit", choices=("db", "linear"), default="db", help="unit of the SAR files (default: db)"
    )
    args, root, roots = open_download(parser, argv, "spacenet6")
    folders = {
        "SAR": find_folder(roots, "SAR-Intensity", what="the SAR tiles"),
        "optical": find_folder(roots, "PS-RGB", what="the optical tiles"),
        "footprint": find_folder(roots, "geojson_buildings", "Buildings", what="the footprints"),
    }
    sar = index_by_stem(folders["SAR"], strip=(f"{_PREFIX}SAR-Intensity_",))
    optical = index_by_stem(folders["optical"], strip=(f"{_PREFIX}PS-RGB_",))
    footprints = index_by_stem(folders["footprint"], strip=(f"{_PREFIX}Buildings_",), suffixes=(".geojson",))
    _check_partners(sar, optical=optical, footprint=footprints)
    stems = list(sar) if args.orientation == "both" else _select_orientation(sar, args.orientation, roots)
    splits = split_by_easting({stem: sar[stem] for stem in stems}, args.border)
    jobs = [
        TileJob(
            split,
            stem,
            _FOLDERS,
            partial(
                make_tile, optical=optical[stem], sar=sar[stem], footprints=footprints[stem], sar_unit=args.sar_unit
            ),
        )
        for split, names in splits.items()
        for stem in names
    ]
    facts = {"script": "prepare_spacenet6", "border_easting": args.border, "orientation": args.orientation}
    counts = prepare_dataset(jobs, root, made_by=facts | {"sar_unit": args.sar_unit}, workers=args.workers)
    print(
        f"{counts.written} tiles written, {counts.finished_before} were there "
        f"(train {len(splits['train'])}, val {len(splits['val'])}, across the border {len(stems) - len(jobs)}); {root}"
    )


if __name__ == "__main__":
    main()
