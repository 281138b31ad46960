"""Hectares of label rasters: planar, geodesic, and refusals."""

import math

import numpy as np
import pytest
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
    np.testing.assert_allclose(row_pixel_areas(3, crs=UTM, transform=turned), 200.0)


def test_feet_are_not_metres():
    feet = CRS.from_epsg(2263)  # New York Long Island, US survey feet
    area = row_pixel_areas(1, crs=feet, transform=Affine(1000, 0, 0, 0, -1000, 0))[0]
    assert area == pytest.approx((1000 * 1200 / 3937) ** 2, rel=1e-9)


def test_the_whole_earth_has_the_area_of_the_ellipsoid():
    labels = np.zeros((180, 360), dtype=np.uint8)
    areas = class_areas(labels, crs=WGS84, transform=Affine(1, 0, -180, 0, -1, 90))
    assert areas[0] * 1e4 == pytest.approx(510_065_621.724e6, rel=1e-9)  # square metres, WGS 84


def test_geographic_rows_shrink_towards_the_poles_and_equal_an_integral():
    north, south = row_pixel_areas(2, crs=WGS84, transform=Affine(0.001, 0, 4, 0, -60, 60))
    assert north == pytest.approx(south)  # 60..0 and 0..-60 degrees are mirror images
    south_up = row_pixel_areas(3, crs=WGS84, transform=Affine(0.01, 0, 4, 0, 0.01, 45))
    major, flattening = 6378137.0, 1 / 298.257223563
    eccentricity2 = flattening * (2 - flattening)

    def cell(latitude_deg):
        """Area of a 0.01 degree cell from the radii of curvature at its middle."""
        sine = math.sin(math.radians(latitude_deg))
        across = major / math.sqrt(1 - eccentricity2 * sine**2)
        along = major * (1 - eccentricity2) / (1 - eccentricity2 * sine**2) ** 1.5
        return across * math.cos(math.radians(latitude_deg)) * along * math.radians(0.01) ** 2

    np.testing.assert_allclose(south_up, [cell(45.005), cell(45.015), cell(45.025)], rtol=1e-7)


@pytest.mark.parametrize(
    ("crs", "transform", "sentence"),
    [
        (None, NORTH_UP, "'map.tif' has no coordinate reference system"),
        (CRS.from_epsg(3857), NORTH_UP, "web Mercator"),
        (WGS84, Affine(0.1, 0.01, 0, 0, -0.1, 0), "turned against the meridians"),
        (WGS84, Affine(0.1, 0, 0, 0, -50, 60), "reaches the latitude"),
    ],
)
def test_unknown_areas_are_refused(crs, transform, sentence):
    with pytest.raises(UserError, match=sentence):
        class_areas(np.zeros((4, 4), np.uint8), crs=crs, transform=transform, source="map.tif")
