"""Small trees of SpaceNet 6: the training archive as it unpacks, and what `prepare_spacenet6` makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
from rasterio.transform import Affine

from mmovseg.testing.fakes import write_raster

STRIPS = {"20190804111224_20190804111453": 0, "20190822065725_20190822065959": 1}
"""Flight strips and the side they looked from: 0 north, 1 south."""

AOI = "train/AOI_11_Rotterdam"
_CRS = "EPSG:32631"
_TOP = 5_750_000.0
_PIXEL_M = 0.5
_BORDER = 595_310.0  # of prepare_spacenet6, which this package must not import
_HOLE = 6  # columns at the west edge without data, as at the edge of a strip


def write_tree(
    root: str | Path, *, layout: Literal["own", "public"] = "own", count: int = 2, size: int = 48, seed: int = 0
) -> Path:
    """Write a tree of SpaceNet 6 whose tiles hold one building each and a strip without data.

    Args:
        root: public: the folder that the archive is unpacked in; own: the folder of all data sets.
        layout: `public` is the archive (with one tile across the border of train and val, which belongs to neither),
            `own` is the prepared set.
        count: tiles a split.
        size: side of a tile, pixels (900 in reality).
        seed: of everything random.

    Returns:
        `root`.
    """
    rng, root = np.random.default_rng(seed), Path(root)
    width = size * _PIXEL_M
    wests = {"train": [_BORDER - (2 + index) * width for index in range(count)]}
    wests["val"] = [_BORDER + index * width for index in range(count)]
    if layout == "public":
        wests["across"] = [_BORDER - width / 2]
        _write_orientations(root / AOI / "SummaryData")
    number = 7000
    for split, edges in wests.items():
        for west in edges:
            stem = f"{list(STRIPS)[number % 2]}_tile_{number}"
            scene = _Scene(rng, size, west)
            if layout == "public":
                scene.write_public(root / AOI, stem)
            else:
                scene.write_own(root / "spacenet6" / split, stem)
            number += 1
    return root


class _Scene:
    """A tile with one rectangular building, bright for both sensors."""

    def __init__(self, rng: np.random.Generator, size: int, west: float) -> None:
        self.transform = Affine(_PIXEL_M, 0.0, west, 0.0, -_PIXEL_M, _TOP)
        row, col = (int(value) for value in rng.integers(size // 4, size // 2, 2))
        self.box = (row, row + size // 4, col, col + size // 4)
        self.label = np.zeros((size, size), dtype=np.uint8)
        self.label[self.box[0] : self.box[1], self.box[2] : self.box[3]] = 1
        bright = self.label[:, :, None] * 90.0
        self.optical = np.clip(80 + bright + rng.normal(0, 6, (size, size, 3)), 1, 255).astype(np.uint8)
        self.sar = (25 + bright / 6 + rng.normal(0, 2, (size, size, 4))).astype(np.float32)
        self.optical[:, :_HOLE], self.sar[:, :_HOLE] = 0, 0

    def write_public(self, folder: Path, stem: str) -> None:
        place = {"crs": _CRS, "transform": self.transform}
        for kind, pixels in (("PS-RGB", self.optical), ("SAR-Intensity", self.sar)):
            write_raster(folder / kind / f"SN6_Train_AOI_11_Rotterdam_{kind}_{stem}.tif", pixels, **place)
        path = folder / "geojson_buildings" / f"SN6_Train_AOI_11_Rotterdam_Buildings_{stem}.geojson"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._footprints()), encoding="utf-8")

    def write_own(self, folder: Path, stem: str) -> None:
        place = {"crs": _CRS, "transform": self.transform}
        sar, label = self.sar.copy(), self.label.copy()
        sar[:, :_HOLE], label[:, :_HOLE] = np.nan, 255
        write_raster(folder / "optical" / f"{stem}.tif", self.optical, nodata=0, **place)
        write_raster(folder / "sar" / f"{stem}.tif", sar, nodata=float("nan"), **place)
        write_raster(folder / "label" / f"{stem}.tif", label, **place)

    def _footprints(self) -> dict[str, object]:
        top, bottom, left, right = self.box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        # three coordinates, as published
        ring = [[self.transform.c + _PIXEL_M * col, _TOP - _PIXEL_M * row, 0.0] for col, row in corners]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
        feature = {"type": "Feature", "properties": {"ImageId": "made up"}, "geometry": geometry}
        return {"type": "FeatureCollection", "crs": crs, "features": [feature]}


def _write_orientations(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{strip} {side}\n" for strip, side in STRIPS.items()]
    (folder / "SAR_orientations.txt").write_text("".join(lines), encoding="utf-8")
