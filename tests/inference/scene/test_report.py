import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from mmovseg.data.io import read_label
from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.inference.area import class_areas
from mmovseg.inference.scene.report import area_note, class_report
from mmovseg.testing.scene_maps import FOUR_CLASSES, blocky_labels, map_grid, write_map

VOCABULARY = vocabulary_from_names(FOUR_CLASSES)
SHAPE = (700, 300)


@pytest.mark.parametrize("epsg", [32633, 4326])
def test_the_same_as_the_whole_raster_at_once(tmp_path, epsg):
    pixel = Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5e6) if epsg == 32633 else Affine(0.01, 0, 14.0, 0, -0.01, 46.0)
    labels = blocky_labels(SHAPE)
    grid = map_grid(SHAPE, crs=CRS.from_epsg(epsg), transform=pixel)
    path = write_map(tmp_path / "map.tif", labels, grid, VOCABULARY)
    report = class_report(path, VOCABULARY)
    whole = class_areas(read_label(path), crs=grid.crs, transform=grid.transform)
    assert list(report) == VOCABULARY.names
    for value, name in enumerate(VOCABULARY.names):
        assert report[name]["value"] == value
        assert report[name]["pixels"] == (labels == value).sum()
        assert report[name]["hectares"] == pytest.approx(whole[value], rel=1e-9, abs=1e-4)
    assert area_note(path) is None


def test_a_class_without_pixels_and_nodata(tmp_path):
    labels = np.full(SHAPE, 255, dtype=np.uint8)
    labels[0, 0] = 2
    report = class_report(write_map(tmp_path / "map.tif", labels, map_grid(SHAPE), VOCABULARY), VOCABULARY)
    assert [row["pixels"] for row in report.values()] == [0, 0, 1, 0]
    assert [row["hectares"] for row in report.values()] == [0.0, 0.0, 0.01, 0.0]


def test_two_byte_labels(tmp_path):
    vocabulary = vocabulary_from_names([f"class {number}" for number in range(300)])
    labels = blocky_labels(SHAPE, classes=300, nodata=65535)
    report = class_report(write_map(tmp_path / "map.tif", labels, map_grid(SHAPE), vocabulary), vocabulary)
    assert [row["pixels"] for row in report.values()] == [(labels == value).sum() for value in range(300)]


@pytest.mark.parametrize(
    ("epsg", "words"), [(None, "no coordinate reference system"), (3857, "shows areas"), (3395, "shows areas")]
)
def test_unknown_areas_are_none_with_a_reason(tmp_path, epsg, words):
    grid = map_grid(SHAPE, crs=None if epsg is None else CRS.from_epsg(epsg))
    path = write_map(tmp_path / "map.tif", blocky_labels(SHAPE), grid, VOCABULARY)
    assert {row["hectares"] for row in class_report(path, VOCABULARY).values()} == {None}
    assert words in area_note(path)


def test_bad_maps_are_named(tmp_path):
    path = write_map(tmp_path / "map.tif", blocky_labels(SHAPE), map_grid(SHAPE), VOCABULARY)
    with pytest.raises(UserError, match="holds the value 3, but only 3 classes are named"):
        class_report(path, vocabulary_from_names("a, b, c"))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(UserError, match="is damaged or cut off"):
        class_report(path, VOCABULARY)
    with pytest.raises(UserError, match="cannot be opened"):
        class_report(tmp_path / "none.tif", VOCABULARY)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_without_nodata(tmp_path):
    with rasterio.open(
        tmp_path / "plain.tif", "w", driver="GTiff", height=3, width=5, count=1, dtype="uint8"
    ) as target:
        target.write(np.ones((1, 3, 5), dtype=np.uint8))
    report = class_report(tmp_path / "plain.tif", VOCABULARY)
    assert [row["pixels"] for row in report.values()] == [0, 15, 0, 0]
