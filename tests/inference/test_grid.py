"""Grids of rasters: equal or not, and how large a pixel is on the ground."""

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from mmovseg.errors import UserError
from mmovseg.inference.grid import Grid, common_grid, read_grid
from mmovseg.testing.fakes import write_raster


@pytest.mark.parametrize(
    ("profile", "shape", "sentence"),
    [
        ({}, (4, 5), "4x6 against 4x5 pixels"),
        ({"crs": "EPSG:32632"}, (4, 6), "EPSG:32631 against EPSG:32632"),
        ({"crs": None}, (4, 6), "EPSG:32631 against no coordinate system"),
        ({"transform": Affine(10, 0, 600003, 0, -10, 5700000)}, (4, 6), "0.30 pixels apart"),
        ({"transform": Affine(11, 0, 600000, 0, -10, 5700000)}, (4, 6), "0.60 pixels apart"),
    ],
)
def test_other_grids_are_refused_in_one_sentence(tmp_path, profile, shape, sentence):
    first = write_raster(tmp_path / "a.tif", np.zeros((4, 6), np.uint8))
    second = write_raster(tmp_path / "b.tif", np.zeros(shape, np.uint8), **profile)
    with pytest.raises(UserError, match=sentence) as error:
        common_grid([first, second])
    assert "a.tif" in str(error.value) and "b.tif" in str(error.value)
    shifted = write_raster(
        tmp_path / "c.tif", np.zeros((4, 6), np.uint8), transform=Affine(10, 0, 600000.05, 0, -10, 5700000)
    )
    assert common_grid([first, shifted]).crs == CRS.from_epsg(32631)


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32633", Affine(2.5, 0, 500000, 0, -2.5, 5800000), 2.5),
        ("EPSG:32633", Affine(8, 6, 500000, 6, -8, 5800000), 10.0),  # turned
        ("EPSG:2263", Affine(10, 0, 980000, 0, -10, 200000), 3.048),  # US feet
        ("EPSG:3857", Affine(20, 0, 0, 0, -20, 8399737.9), np.sqrt(10.0252 * 10.0084)),  # 60 degrees north
        ("EPSG:4326", Affine(1 / 3600, 0, 10, 0, -1 / 3600, 0.1), np.sqrt(30.922 * 30.715)),  # an arc second, equator
        ("EPSG:4326", Affine(1 / 3600, 0, 179.999, 0, -1 / 3600, 60), np.sqrt(15.5 * 30.95)),  # over the date line
    ],
)
def test_a_pixel_is_measured_on_the_ground(crs, transform, expected):
    grid = Grid(CRS.from_user_input(crs), transform, 8, 8, "a.tif")
    assert grid.gsd_m() == pytest.approx(expected, rel=2e-3)


def test_a_grid_without_a_system_has_no_size_on_the_ground():
    assert Grid(None, Affine.identity(), 8, 8, "a.png").gsd_m() is None
    engineering = CRS.from_wkt('LOCAL_CS["workshop",UNIT["metre",1]]')
    assert Grid(engineering, Affine(2, 0, 0, 0, -2, 0), 8, 8, "a.tif").gsd_m() is None


def test_bounds_in_degrees_hold_the_whole_raster():
    transform = Affine(10, 0, 300000, 0, -10, 5900000)
    found = Grid(CRS.from_epsg(32632), transform, 1000, 1000, "a.tif").bounds_lonlat()
    expected = transform_bounds("EPSG:32632", "EPSG:4326", 300000, 5890000, 310000, 5900000)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match="'no_such.tif' does not exist"):
        read_grid("no_such.tif")
