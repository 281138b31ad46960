#!/usr/bin/env python
"""IEEE GRSS Data Fusion Contest 2023 -> <output>/dfc2023 (roof types) or <output>/dfc2023_building, 512 px tiles.

The download (IEEE DataPort, with a login: DFC23_IEEE-DataPort.zip, track1.zip or track2.zip), as it is or unpacked:

    track1/roof_fine_train.json       COCO: images, annotations (polygons or run lengths), 12 categories
    track1/train/rgb/<name>.tif       8 bit; <name> = SV|GF2 _ <city> _ <latitude> _ <longitude>
    track1/train/sar/<name>.tif       one band, float32
    track2/buildings_only_train.json, track2/train/{rgb,sar}/<name>.tif      the same with one category

- labels: `--labels roof` (default) gives 0 background, 1 to 12 the roof types in the order of `ROOFS`; `--labels
  building` gives 0 background, 1 building, from either track, as a set of its own. Small roofs lie over large ones.
- sar: made dB, NaN where the value is not above 0. The publishers do not state what the numbers are. Those of the test
  tiles (0.03 to 11.9, mean 0.18) look like amplitude: the brightest lie 36 dB above the mean then, 18 dB as power. So
  `--sar-quantity amplitude` is the default; `power` and `db` are the others. Uncalibrated either way.
- split: by city, so that no street of a test city is in training: every fourth city of the sorted names is val, or
  those of `--val-cities`. Annotated tiles without a city in their name are left out, because their city may be one of
  val. The contest's own val and test tiles have no public labels and are not used.

    datasets/prepare_dfc2023.py --source track1.zip --workers 8
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from mmovseg.data.prepare import (
    Layer,
    TileJob,
    find_folder,
    index_by_stem,
    open_sources,
    prepare_dataset,
    prepare_parser,
    read_layer,
)
from mmovseg.data.sar import convert_sar
from mmovseg.errors import UserError, exit_on_user_error

ROOFS = (
    ("flat_roof",),
    ("gable_roof",),
    ("gambrel_roof",),
    ("row_roof",),
    ("multiple_eave_roof",),
    ("hipped_roof_v1",),
    ("hipped_roof_v2",),
    ("mansard_roof",),
    ("pyramid_roof", "pinnacle_roof"),
    ("arched_roof",),
    ("dome", "revolved"),
    ("other",),
)
"""Names of the twelve categories, with the second name that some editions use; label id = position + 1."""

SarQuantity = Literal["amplitude", "power", "db"]
LabelKind = Literal["roof", "building"]
_FOLDERS = ("optical", "sar", "label")
_SENSORS = ("SV", "GF2")
_ANNOTATIONS: dict[LabelKind, tuple[str, ...]] = {
    "roof": ("roof_fine_train_corrected.json", "roof_fine_train.json"),
    "building": ("buildings_only_train.json", "roof_fine_train_corrected.json", "roof_fine_train.json"),
}
_TRACK: dict[LabelKind, str] = {"roof": "track1", "building": "track2"}


class Outline(NamedTuple):
    """One annotated building: class id, area for the order of drawing, COCO segmentation."""

    class_id: int
    area: float
    segmentation: Any


def make_tile(
    *, optical: Path, sar: Path, outlines: Sequence[Outline], quantity: SarQuantity, source: str
) -> dict[str, Layer]:
    """Return the layers of one tile.

    Raises:
        UserError: a file is missing or damaged, the SAR has several bands, or an outline cannot be drawn.
    """
    image, radar = read_layer(optical, bands=(1, 2, 3)), read_layer(sar)
    if radar.array.ndim != 2:
        raise UserError(f"SAR raster '{sar}' has {radar.array.shape[2]} bands; one was expected")
    label = draw_outlines(outlines, image.size, source=source)
    values = sar_to_db(radar.array, quantity)
    return {
        "optical": image.with_array(image.array),
        "sar": Layer(values, radar.crs, radar.transform, nodata=float("nan")),
        "label": image.with_array(label),
    }


def sar_to_db(values: np.ndarray, quantity: SarQuantity) -> np.ndarray:
    """Turn stored values into dB, float32; what cannot be backscatter (not above 0, not finite) becomes NaN."""
    values = values.astype(np.float32)
    if quantity == "db":
        return np.where(np.isfinite(values), values, np.float32(np.nan))
    known = np.isfinite(values) & (values > 0)
    power = np.where(known, np.square(values) if quantity == "amplitude" else values, np.float32(np.nan))
    return convert_sar(power, unit_in="linear", unit_out="db")


def draw_outlines(outlines: Sequence[Outline], size: tuple[int, int], *, source: str) -> np.ndarray:
    """Draw annotated buildings, the largest first.

    Args:
        outlines: in the order of the file, which decides among equal areas.
        size: height and width, pixels.
        source: names the annotations in messages.

    Returns:
        (H, W) uint8 of class ids, 0 where there is no building.

    Raises:
        UserError: a segmentation is neither polygons nor run lengths of this size.
    """
    label = np.zeros(size, dtype=np.uint8)
    for outline in sorted(outlines, key=lambda outline: -outline.area):
        label[_mask_of(outline.segmentation, size, source)] = outline.class_id
    return label


def read_annotations(path: Path, kind: LabelKind) -> dict[str, list[Outline]]:
    """Return the buildings of each image, by file stem; images without a building have an empty list.

    Raises:
        UserError: the file cannot be read, is no COCO annotation, lists an image twice, or has an unknown category.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        if len(set(stems.values())) < len(content["images"]):
            raise UserError(f"annotations '{path}' list an image twice")
        ids = {category["id"]: _class_id(category["name"], kind, path) for category in content["categories"]}
        found: dict[str, list[Outline]] = {stem: [] for stem in stems.values()}
        for item in content["annotations"]:
            if item["category_id"] not in ids:
                raise UserError(f"annotations '{path}' use the category {item['category_id']}, which they do not list")
            outline = Outline(ids[item["category_id"]], float(item.get("area", 0)), item["segmentation"])
            found[stems[item["image_id"]]].append(outline)
    except OSError as error:
        raise UserError(f"annotations '{path}' cannot be read: {error.strerror}") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"annotations '{path}' are not in the COCO format: {error!r} is missing or wrong") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"annotations '{path}' are not valid JSON: {error}") from error
    return found


def city_of(stem: str) -> str | None:
    """Return the city in ``SV_<city>_<latitude>_<longitude>``, or None."""
    parts = stem.split("_")
    return parts[1] if len(parts) == 4 and parts[0] in _SENSORS else None


def split_by_city(stems: Iterable[str], val_cities: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Put whole cities into train or val; tiles without a city are in neither.

    Args:
        stems: of the tiles.
        val_cities: cities of val; None takes every fourth of the sorted names, at least the last.

    Raises:
        UserError: a named city is not there, or one of the two lists is empty.
    """
    by_city: dict[str, list[str]] = defaultdict(list)
    for stem in sorted(stems):
        if (city := city_of(stem)) is not None:
            by_city[city].append(stem)
    cities = sorted(by_city)
    unknown = sorted(set(val_cities or ()) - set(cities))
    if unknown:
        raise UserError(f"--val-cities names '{unknown[0]}'; the download has: {', '.join(cities)}")
    val = set(val_cities or cities[3::4] or cities[-1:])
    splits = {
        "train": [stem for city in cities if city not in val for stem in by_city[city]],
        "val": [stem for city in cities if city in val for stem in by_city[city]],
    }
    for split, names in splits.items():
        if not names:
            raise UserError(f"{split} is empty: the download has the cities {', '.join(cities) or '(none)'}")
    return splits


def _class_id(name: str, kind: LabelKind, path: Path) -> int:
    if kind == "building":
        return 1
    for number, names in enumerate(ROOFS, 1):
        if name.strip().lower() in names:
            return number
    hint = "; it is that of track 2, prepare it with --labels building" if "building" in name.lower() else ""
    raise UserError(f"annotations '{path}' have the unknown category '{name}'{hint}")


def _mask_of(segmentation: Any, size: tuple[int, int], source: str) -> np.ndarray:
    """Return (H, W) bool of one COCO segmentation; polygons of fewer than three corners cover nothing."""
    if isinstance(segmentation, list):
        segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not segmentation:
            return np.zeros(size, dtype=bool)
    try:
        if isinstance(segmentation, list):
            runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        elif isinstance(segmentation["counts"], list):
            runs = coco_mask.frPyObjects(segmentation, *size)
        else:
            runs = segmentation
        drawn = coco_mask.decode(runs).astype(bool)
    except Exception as error:  # the compiled part raises whatever comes
        raise UserError(f"annotations of '{source}' hold a segmentation that cannot be drawn: {error}") from error
    if drawn.shape != size:
        (height, width), sizes = drawn.shape, f"{size[0]}x{size[1]}"
        raise UserError(f"annotations of '{source}' are for {height}x{width} pixels, the image has {sizes}")
    return np.asarray(drawn)


def _find_annotations(roots: Sequence[Path], named: Path | None, kind: LabelKind) -> Path:
    if named is not None:
        return named
    for name in _ANNOTATIONS[kind]:
        hits = sorted((path for root in roots for path in root.rglob(name)), key=lambda path: len(path.parts))
        if hits:
            return hits[0]
    where = ", ".join(f"'{root}'" for root in roots)
    raise UserError(f"no {' or '.join(_ANNOTATIONS[kind])} in {where}; name the file with --annotations")


def _index(roots: Sequence[Path], kind: LabelKind, folder: str, what: str) -> dict[str, Path]:
    return index_by_stem(find_folder(roots, f"{_TRACK[kind]}/train/{folder}", f"train/{folder}", what=what))


def _check_files(stems: Iterable[str], annotations: Path, **images: Mapping[str, Path]) -> None:
    for stem in stems:
        for what, files in images.items():
            if stem not in files:
                raise UserError(f"annotations '{annotations}' list '{stem}', which has no {what} file")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = prepare_parser(__doc__)
    parser.add_argument("--labels", choices=tuple(_TRACK), default="roof", help="what to label (default: roof)")
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="default: found in the source by its name")
    parser.add_argument("--val-cities", metavar="A,B", help="cities of val (default: every fourth of the sorted names)")
    parser.add_argument(
        "--sar-quantity", choices=("amplitude", "power", "db"), default="amplitude", help="what the SAR files hold"
    )
    args = parser.parse_args(argv)
    kind: LabelKind = args.labels
    root = args.output / ("dfc2023" if kind == "roof" else "dfc2023_building")
    roots = open_sources(args.source, root / ".unpacked")
    path = _find_annotations(roots, args.annotations, kind)
    outlines = read_annotations(path, kind)
    optical, sar = _index(roots, kind, "rgb", "the optical images"), _index(roots, kind, "sar", "the SAR images")
    cities = None if args.val_cities is None else [city.strip() for city in args.val_cities.split(",")]
    splits = split_by_city(outlines, cities)
    _check_files((stem for stems in splits.values() for stem in stems), path, optical=optical, SAR=sar)
    jobs = [
        TileJob(
            split,
            stem,
            _FOLDERS,
            partial(
                make_tile,
                optical=optical[stem],
                sar=sar[stem],
                outlines=outlines[stem],
                quantity=args.sar_quantity,
                source=stem,
            ),
        )
        for split, stems in splits.items()
        for stem in stems
    ]
    val_cities = sorted({str(city_of(stem)) for stem in splits["val"]})
    facts = {"script": "prepare_dfc2023", "labels": kind, "annotations": path.name, "val_cities": val_cities}
    counts = prepare_dataset(jobs, root, made_by=facts | {"sar_quantity": args.sar_quantity}, workers=args.workers)
    print(
        f"{counts.written} tiles written, {counts.finished_before} were there (train {len(splits['train'])}, "
        f"val {len(splits['val'])}: {', '.join(val_cities)}; {len(outlines) - len(jobs)} without a city); {root}"
    )


if __name__ == "__main__":
    main()
