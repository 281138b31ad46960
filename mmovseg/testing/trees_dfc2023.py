"""Small trees of DFC2023: both tracks as they unpack, and what `prepare_dfc2023` makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask
from rasterio.transform import Affine

from mmovseg.testing.fakes import write_raster

Name = Literal["dfc2023", "dfc2023_building"]

TRAIN_CITIES, VAL_CITIES = ("Aarhus", "Berlin", "Copenhagen"), ("Dakar",)
"""Made up, but for their order: the fourth of the sorted names is val."""

ROOFS = (
    "flat_roof gable_roof gambrel_roof row_roof multiple_eave_roof hipped_roof_v1 hipped_roof_v2 mansard_roof "
    "pyramid_roof arched_roof dome other"
).split()

_TRACKS: dict[Name, tuple[str, str]] = {
    "dfc2023": ("track1", "roof_fine_train.json"),
    "dfc2023_building": ("track2", "buildings_only_train.json"),
}
_NO_CITY = "P_0199"


def write_tree(
    root: str | Path,
    *,
    layout: Literal["own", "public"] = "own",
    count: int = 3,
    size: int = 48,
    seed: int = 0,
    name: Name = "dfc2023",
) -> Path:
    """Write a tree of DFC2023 whose tiles hold three buildings: a large one, one that covers a part of it, one apart.

    Args:
        root: public: the folder that the archive is unpacked in; own: the folder of all data sets.
        layout: `public` is a track (with one tile without a city, which belongs to no split), `own` the prepared set.
        count: tiles a split; those of train go round its cities.
        size: side of a tile, pixels (512 in reality).
        seed: of everything random.
        name: roof types (track 1) or buildings (track 2).

    Returns:
        `root`.
    """
    rng, root = np.random.default_rng(seed), Path(root)
    tiles = {
        split: [f"{('SV', 'GF2')[i % 2]}_{cities[i % len(cities)]}_41.{4000 + i}_2.{1900 + i}" for i in range(count)]
        for split, cities in (("train", TRAIN_CITIES), ("val", VAL_CITIES))
    }
    track, annotations = _TRACKS[name]
    coco: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": _categories(name)}
    for number, (split, stem) in enumerate((split, stem) for split, stems in tiles.items() for stem in stems):
        scene = _Scene(rng, size, first_class=number * 3, name=name)
        if layout == "public":
            scene.write_public(root / track / "train", stem, coco)
        else:
            scene.write_own(root / name / split, stem)
    if layout == "public":
        _Scene(rng, size, first_class=0, name=name).write_public(root / track / "train", _NO_CITY, coco)
        (root / track / annotations).write_text(json.dumps(coco), encoding="utf-8")
    return root


class _Scene:
    """Three rectangles; the second lies on the first. Every second tile has no coordinate system, as in reality."""

    def __init__(self, rng: np.random.Generator, size: int, *, first_class: int, name: Name) -> None:
        unit = size // 8
        boxes = ((1, 5, 1, 5), (3, 5, 3, 5), (5, 7, 5, 8))  # rows, columns, in units
        classes = [(first_class + i) % len(ROOFS) + 1 if name == "dfc2023" else 1 for i in range(3)]
        self.masks = []
        self.label = np.zeros((size, size), dtype=np.uint8)
        for class_id, box in zip(classes, boxes, strict=True):
            top, bottom, left, right = (unit * edge for edge in box)
            mask = np.zeros((size, size), dtype=np.uint8)
            mask[top:bottom, left:right] = 1
            self.label[mask == 1] = class_id
            self.masks.append((class_id, mask, (top, bottom, left, right)))
        bright = np.where(self.label > 0, 90.0 + 3 * self.label, 0.0)[:, :, None]
        self.optical = np.clip(70 + bright + rng.normal(0, 6, (size, size, 3)), 1, 255).astype(np.uint8)
        amplitude = (0.1 + bright[:, :, 0] / 200) * rng.rayleigh(0.8, (size, size)) + 0.03
        self.amplitude = amplitude.astype(np.float32)
        self.amplitude[0, 0] = 0
        transform = Affine(0.5, 0.0, 430_000.0, 0.0, -0.5, 4_580_000.0)
        self.place: dict[str, Any] = {"crs": "EPSG:32631" if first_class % 2 == 0 else None, "transform": transform}

    def write_public(self, folder: Path, stem: str, coco: dict[str, list[dict[str, Any]]]) -> None:
        write_raster(folder / "rgb" / f"{stem}.tif", self.optical, **self.place)
        write_raster(folder / "sar" / f"{stem}.tif", self.amplitude, **self.place)
        height, width = self.label.shape
        image_id = len(coco["images"])
        coco["images"].append({"file_name": f"{stem}.tif", "height": height, "width": width, "id": image_id})
        # the small one stands first in the file: it must be drawn last all the same
        for number, (class_id, mask, box) in enumerate(self.masks[::-1]):
            item = {"id": len(coco["annotations"]), "image_id": image_id, "category_id": class_id, "iscrowd": 0}
            item |= {"area": int(mask.sum()), "segmentation": _segmentation(mask, box, as_runs=number == 2)}
            coco["annotations"].append(item)

    def write_own(self, folder: Path, stem: str) -> None:
        sar_db = np.full(self.amplitude.shape, np.nan, dtype=np.float32)
        known = self.amplitude > 0
        sar_db[known] = 20 * np.log10(self.amplitude[known])
        write_raster(folder / "optical" / f"{stem}.tif", self.optical, **self.place)
        write_raster(folder / "sar" / f"{stem}.tif", sar_db, nodata=float("nan"), **self.place)
        write_raster(folder / "label" / f"{stem}.tif", self.label, **self.place)


def _categories(name: Name) -> list[dict[str, Any]]:
    words = ROOFS if name == "dfc2023" else ["building"]
    return [{"id": number, "name": word, "supercategory": word} for number, word in enumerate(words, 1)]


def _segmentation(mask: np.ndarray, box: tuple[int, int, int, int], *, as_runs: bool) -> Any:
    """Both encodings that occur: run lengths, or polygons."""
    if as_runs:
        runs = coco_mask.encode(np.asfortranarray(mask))
        return {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")}
    top, bottom, left, right = box
    return [[left, top, right, top, right, bottom, left, bottom]]
