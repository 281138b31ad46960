"""The flood product: its classes, its grid, its file."""

import json

import numpy as np
import pytest
import rasterio

from mmovseg.errors import UserError
from mmovseg.inference.flood import (
    CLASSES,
    DRY,
    FLOODED,
    NO_DATA,
    PERMANENT_WATER,
    WATER_UNDATED,
    area_report,
    combine_dates,
    from_flood_classes,
    write_product,
    write_report,
)
from mmovseg.inference.grid import read_grid
from mmovseg.testing.fakes import write_raster

YES, NO = True, False


def test_every_case_of_two_dates():
    #                dry   permanent flooded  gone  unknown dry   no data
    after = np.array([[NO, YES, YES, NO, YES, NO, YES]])
    before = np.array([[NO, YES, NO, YES, NO, YES, YES]])
    valid_before = np.array([[YES, YES, YES, YES, NO, NO, YES]])
    valid_after = np.array([[YES, YES, YES, YES, YES, YES, NO]])
    product = combine_dates(after, valid_after, before, valid_before)
    assert product.tolist() == [[DRY, PERMANENT_WATER, FLOODED, DRY, WATER_UNDATED, DRY, NO_DATA]]


def test_one_date_calls_no_water_flooded():
    product = combine_dates(np.array([[YES, NO]]), np.ones((1, 2), bool))
    assert product.tolist() == [[WATER_UNDATED, DRY]]


def test_a_flood_model_may_know_permanent_water():
    flooded, water = np.array([[YES, NO, NO]]), np.array([[YES, YES, NO]])
    valid = np.array([[YES, YES, NO]])
    assert from_flood_classes(flooded, valid).tolist() == [[FLOODED, DRY, NO_DATA]]
    assert from_flood_classes(flooded, valid, water).tolist() == [[FLOODED, PERMANENT_WATER, NO_DATA]]


def test_the_file_keeps_its_place_and_says_what_its_values_mean(tmp_path):
    grid = read_grid(write_raster(tmp_path / "image.tif", np.zeros((2, 3), np.uint8)))
    product = np.array([[0, 1, 2], [3, 255, 2]], dtype=np.uint8)
    path = write_product(tmp_path / "flood.tif", product, grid, tags={"METHOD": "water"})
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), product)
        assert (file.crs, file.transform, file.nodata) == (grid.crs, grid.transform, 255)
        assert file.tags()["METHOD"] == "water" and file.tags(1)["CLASS_2"] == "flooded"
        assert file.colormap(1)[2] == (*CLASSES[2][1], 255)
    report = area_report(product, grid)
    hectares = {name: row["hectares"] for name, row in report["classes"].items()}
    assert hectares == {
        "dry": 0.01, "permanent water": 0.01, "flooded": 0.02, "water, state before unknown": 0.01, "no data": 0.01
    }  # fmt: skip
    write_report(report, tmp_path / "flood.json", tmp_path / "flood.csv")
    assert json.loads((tmp_path / "flood.json").read_text()) == report
    lines = (tmp_path / "flood.csv").read_text().splitlines()
    assert lines[0] == "class,value,pixels,hectares" and lines[3] == "flooded,2,2,0.0200" and len(lines) == 6


def test_another_ending_is_refused(tmp_path):
    grid = read_grid(write_raster(tmp_path / "image.tif", np.zeros((2, 3), np.uint8)))
    with pytest.raises(UserError, match="must end in .tif"):
        write_product(tmp_path / "flood.png", np.zeros((2, 3), np.uint8), grid)
