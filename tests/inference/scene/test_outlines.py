import numpy as np
import pytest
import rasterio
import shapely
from rasterio.errors import RasterioError
from rasterio.features import shapes

from mmovseg.inference.scene.outlines import drop_straight_corners, outlines
from mmovseg.testing.scene_maps import blocky_labels

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path, labels, *, nodata=255):
    profile = {"driver": "GTiff", "count": 1, "dtype": labels.dtype.name, "compress": "deflate", "nodata": nodata}
    with rasterio.open(path, "w", height=labels.shape[0], width=labels.shape[1], **profile) as target:
        target.write(labels, 1)
    return path


def outline(path, rows):
    with rasterio.open(path) as source:
        values, polygons = zip(*outlines(source, strip_rows=rows), strict=True)
    values, polygons = np.concatenate(values), np.concatenate(polygons)
    order = np.lexsort((shapely.to_wkt(polygons), values))
    return values[order], polygons[order]


def drawings():
    random = np.random.default_rng(1)
    rings = np.indices((61, 61)).max(0) // 3 % 2
    spiral = np.zeros((40, 40))
    spiral[::4] = 1
    spiral[1:4, -1] = spiral[5:8, 0] = 1
    return {
        "noise of two": random.integers(0, 2, (60, 50)),
        "noise of four": random.integers(0, 4, (64, 64)),
        "blocks": blocky_labels((120, 200)),
        "nested rings": rings,
        "comb": np.where(np.indices((50, 50))[0] < 45, np.indices((50, 50))[1] % 2, 0),
        "comb turned over": np.where(np.indices((50, 50))[0] > 5, np.indices((50, 50))[1] % 2, 0),
        "spiral": spiral,
        "one value": np.zeros((33, 20)),
        "one value with holes": np.where(random.random((60, 60)) < 0.2, 255, 1),
        "nothing": np.full((20, 20), 255),
        "one column": random.integers(0, 3, (50, 1)),
        "one row": random.integers(0, 3, (1, 50)),
        "checkers": np.indices((30, 30)).sum(0) % 2,
    }


@pytest.mark.parametrize("name", list(drawings()))
def test_strips_give_the_outlines_of_the_whole(tmp_path, name):
    labels = drawings()[name].astype(np.uint8)
    path = write(tmp_path / "labels.tif", labels)
    whole = [
        (int(value), shapely.geometry.shape(geometry).area)
        for geometry, value in shapes(labels, mask=labels != 255, connectivity=4)
    ]
    values, polygons = outline(path, 1000)
    assert sorted(zip(values.tolist(), shapely.area(polygons).tolist(), strict=True)) == sorted(whole)
    assert shapely.is_valid(polygons).all()
    for rows in (1, 7, 16):
        in_strips = outline(path, rows)
        assert np.array_equal(in_strips[0], values)
        assert shapely.equals_exact(in_strips[1], polygons).all(), "corners differ"


def test_areas_that_only_touch_at_a_corner_stay_apart(tmp_path):
    labels = np.full((20, 20), 255, dtype=np.uint8)
    labels[4:8, 4:8] = labels[8:12, 8:12] = 1
    values, polygons = outline(write(tmp_path / "labels.tif", labels), 8)
    assert values.tolist() == [1, 1]
    assert shapely.area(polygons).tolist() == [16.0, 16.0]


def test_two_byte_values(tmp_path):
    labels = blocky_labels((60, 60), classes=300, nodata=65535)
    values, polygons = outline(write(tmp_path / "labels.tif", labels, nodata=65535), 13)
    assert values.max() > 255 and 65535 not in values
    for value in np.unique(values):
        assert shapely.area(polygons[values == value]).sum() == (labels == value).sum()


def test_straight_corners_go_and_others_stay():
    square = shapely.normalize(shapely.from_wkt(["POLYGON ((0 0, 1 0, 2 0, 2 1, 2 2, 0 2, 0 0))"]))
    assert shapely.get_num_coordinates(drop_straight_corners(square)).tolist() == [5]
    step = shapely.normalize(shapely.from_wkt(["POLYGON ((0 0, 2 0, 2 1, 1 1, 1 2, 0 2, 0 0))"]))
    assert shapely.equals_exact(drop_straight_corners(step), step).all()


def test_a_damaged_raster_is_an_error(tmp_path):
    path = write(tmp_path / "labels.tif", blocky_labels((300, 300), block=2))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(RasterioError):
        outline(path, 64)
