"""Hectares of label rasters: planar, geodesic, and refusals."""

import math

import numpy as np
import pytest
from rasterio import warp
from rasterio.crs import CRS
from rasterio.transform import Affine

from mmovseg.errors import UserError
from mmovseg.inference.area import class_areas, row_pixel_areas

UTM = CRS.from_epsg(32631)
WGS84 = CRS.from_epsg(4326)
NORTH_UP = Affine(10.0, 0.0, 600000.0, 0.0, -10.0, 5700000.0)


def test_projected_pixels_count_their_cells():
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[:5] = 2
    labels[0, 0] = 255
    areas = class_areas(labels, crs=UTM, transform=NORTH_UP)
    assert areas == {0: 4.5, 2: 1.49, 255: 0.01}


def test_a_turned_projected_grid_has_the_area_of_its_parallelogram():
    cos, sin = math.cos(0.5), math.sin(0.5)
    turned = Affine(10 * cos, 20 * sin, 0, 10 * sin, -20 * cos, 0)
    np.testing.assert_allclose(row_pixel_areas((3, 4), crs=UTM, transform=turned), 200.0)


def test_feet_are_not_metres():
    feet = CRS.from_epsg(2263)  # New York Long Island, US survey feet
    area = row_pixel_areas((1, 4), crs=feet, transform=Affine(1000, 0, 0, 0, -1000, 0))[0]
    assert area == pytest.approx((1000 * 1200 / 3937) ** 2, rel=1e-9)


def test_the_whole_earth_has_the_area_of_the_ellipsoid():
    labels = np.zeros((180, 360), dtype=np.uint8)
    areas = class_areas(labels, crs=WGS84, transform=Affine(1, 0, -180, 0, -1, 90))
    assert areas[0] * 1e4 == pytest.approx(510_065_621.724e6, rel=1e-9)  # square metres, WGS 84


def test_geographic_rows_shrink_towards_the_poles_and_equal_an_integral():
    north, south = row_pixel_areas((2, 4), crs=WGS84, transform=Affine(0.001, 0, 4, 0, -60, 60))
    assert north == pytest.approx(south)  # 60..0 and 0..-60 degrees are mirror images
    south_up = row_pixel_areas((3, 4), crs=WGS84, transform=Affine(0.01, 0, 4, 0, 0.01, 45))
    major, flattening = 6378137.0, 1 / 298.257223563
    eccentricity2 = flattening * (2 - flattening)

    def cell(latitude_deg):
        """Area of a 0.01 degree cell from the radii of curvature at its middle."""
        sine = math.sin(math.radians(latitude_deg))
        across = major / math.sqrt(1 - eccentricity2 * sine**2)
        along = major * (1 - eccentricity2) / (1 - eccentricity2 * sine**2) ** 1.5
        return across * math.cos(math.radians(latitude_deg)) * along * math.radians(0.01) ** 2

    np.testing.assert_allclose(south_up, [cell(45.005), cell(45.015), cell(45.025)], rtol=1e-7)


def grid_at(crs, longitude, latitude):
    """Transform of 10 m pixels in the plane of a system, from a place on the ground."""
    (x,), (y,) = warp.transform(WGS84, crs, [longitude], [latitude])
    return Affine(10.0, 0.0, x, 0.0, -10.0, y)


@pytest.mark.parametrize(
    ("system", "longitude", "latitude", "times"),
    [
        ("EPSG:3857", 3, 60, "3.99"),
        ("EPSG:3395", 3, 60, "3.98"),  # world Mercator
        ("EPSG:4087", 3, 60, "1.99"),  # plate carree
        ("EPSG:3413", -45, 60, "1.08"),  # polar stereographic, true at 70 degrees
        ("EPSG:3395", 179.9999, 60, "3.98"),  # a place beyond the date line
        ("+proj=merc +lat_ts=60 +datum=WGS84", 3, 45, "0.50"),  # true at 60 degrees
    ],
)
def test_a_system_that_stretches_areas_is_refused(system, longitude, latitude, times):
    crs = CRS.from_user_input(system)
    with pytest.raises(UserError, match=f"shows areas {times} times as large.*reproject") as error:
        row_pixel_areas((100, 100), crs=crs, transform=grid_at(crs, longitude, latitude), source="map.tif")
    assert len(str(error.value)) < 200  # the code or the name of the system, not its definition


@pytest.mark.parametrize(
    ("system", "longitude", "latitude"),
    [
        ("EPSG:32631", 3, 60),
        ("EPSG:32631", 0, 1),  # the edge of the zone
        ("EPSG:2154", 2, 46),
        ("EPSG:3035", 10, 60),
        ("EPSG:3413", -45, 71),
        ("EPSG:3395", 3, 4),  # Mercator is true at the equator
        ("EPSG:6931", 0, 90),  # equal-area around the pole, a corner of the raster at it
    ],
)
def test_a_system_that_is_true_to_areas_counts_its_cells(system, longitude, latitude):
    crs = CRS.from_user_input(system)
    areas = row_pixel_areas((100, 100), crs=crs, transform=grid_at(crs, longitude, latitude))
    np.testing.assert_array_equal(areas, 100.0)


def test_one_corner_is_enough_to_refuse_and_places_off_the_earth_are_passed_over():
    crs = CRS.from_epsg(3395)
    with pytest.raises(UserError, match="shows areas"):  # from the equator to 16 degrees north
        class_areas(np.zeros((180, 10), np.uint8), crs=crs, transform=Affine(1e4, 0, 0, 0, -1e4, 1.8e6))
    whole_disc = CRS.from_string("+proj=laea +lat_0=0 +lon_0=0 +datum=WGS84")
    areas = row_pixel_areas((100, 100), crs=whole_disc, transform=Affine(3e5, 0, -1.5e7, 0, -3e5, 1.5e7))
    np.testing.assert_array_equal(areas, 9e10)


def test_another_body_has_the_areas_of_its_plane():
    moon = CRS.from_user_input("ESRI:103877")
    np.testing.assert_array_equal(row_pixel_areas((2, 2), crs=moon, transform=NORTH_UP), 100.0)


@pytest.mark.parametrize(
    ("crs", "transform", "sentence"),
    [
        (None, NORTH_UP, "'map.tif' has no coordinate reference system"),
        (CRS.from_epsg(3857), NORTH_UP, "'EPSG:3857', which shows areas 2.04 times as large"),
        (WGS84, Affine(0.1, 0.01, 0, 0, -0.1, 0), "turned against the meridians"),
        (WGS84, Affine(0.1, 0, 0, 0, -50, 60), "reaches the latitude"),
    ],
)
def test_unknown_areas_are_refused(crs, transform, sentence):
    with pytest.raises(UserError, match=sentence):
        class_areas(np.zeros((4, 4), np.uint8), crs=crs, transform=transform, source="map.tif")
