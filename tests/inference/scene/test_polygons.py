import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as reproject

from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.inference.scene.outlines import outlines
from mmovseg.inference.scene.polygons import check_polygon_path, write_polygons
from mmovseg.inference.scene.report import class_report
from mmovseg.testing.scene_maps import FOUR_CLASSES, blocky_labels, limit_file_size, map_grid, write_map

VOCABULARY = vocabulary_from_names(FOUR_CLASSES)
SHAPE = (240, 180)
DEGREES = Affine(1e-4, 0.0, 14.0, 0.0, -1e-4, 46.0)
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def make_map(folder, *, labels=None, **place):
    labels = blocky_labels(SHAPE) if labels is None else labels
    return write_map(folder / "map.tif", labels, map_grid(labels.shape, **place), VOCABULARY)


def read(path):
    meta, _, geometry, columns = pyogrio.raw.read(path)
    return meta, shapely.from_wkb(geometry), dict(zip(meta["fields"], columns, strict=True))


@pytest.mark.parametrize(
    "place",
    [{}, {"transform": Affine(8.0, 3.0, 500000.0, 3.0, -8.0, 5e6)}, {"crs": CRS.from_epsg(4326), "transform": DEGREES}],
    ids=["utm", "rotated", "degrees"],
)
def test_geopackage_holds_every_pixel_once(tmp_path, place):
    path = make_map(tmp_path, **place)
    write_polygons(path, tmp_path / "map.gpkg", VOCABULARY)
    meta, polygons, columns = read(tmp_path / "map.gpkg")
    assert CRS.from_user_input(meta["crs"]) == place.get("crs", CRS.from_epsg(32633))
    assert shapely.is_valid(polygons).all()
    for name, row in class_report(path, VOCABULARY).items():
        mine = columns["class"] == name
        assert set(columns["value"][mine]) == {row["value"]}
        assert columns["area_ha"][mine].sum() == pytest.approx(row["hectares"], rel=1e-6)
        if "crs" not in place:
            assert shapely.area(polygons[mine]).sum() / 1e4 == pytest.approx(row["hectares"], rel=1e-9)
    assert not list(tmp_path.glob(".*"))


def test_geojson_is_longitude_latitude_and_right_handed(tmp_path):
    path = make_map(tmp_path)
    write_polygons(path, tmp_path / "map.geojson", VOCABULARY)
    content = json.loads((tmp_path / "map.geojson").read_text())
    assert content["type"] == "FeatureCollection" and "crs" not in content
    write_polygons(path, tmp_path / "map.gpkg", VOCABULARY)
    _, native, columns = read(tmp_path / "map.gpkg")
    assert [feature["properties"]["class"] for feature in content["features"]] == columns["class"].tolist()
    assert [feature["properties"]["area_ha"] for feature in content["features"]] == columns["area_ha"].tolist()
    polygons = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in content["features"]])
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
    holes = [hole for polygon in polygons for hole in polygon.interiors]
    assert holes and not shapely.is_ccw(holes).any()
    middle = shapely.get_coordinates(shapely.centroid(native))
    expected = np.stack(reproject("EPSG:32633", "EPSG:4326", *middle.T), axis=1)
    assert np.abs(shapely.get_coordinates(shapely.centroid(polygons)) - expected).max() < 1e-6
    assert CRS.from_user_input(read(tmp_path / "map.geojson")[0]["crs"]) == CRS.from_epsg(4326)


def test_small_areas_are_left_out_by_their_true_area(tmp_path):
    labels = np.full((60, 60), 255, dtype=np.uint8)
    labels[0:2, 0:2] = 0  # 400 m2
    labels[10:12, 10:12] = 1
    labels[12, 10] = 1  # 500 m2
    labels[30:33, 30:33] = 2  # 900 m2
    path = make_map(tmp_path, labels=labels)
    for least, expected in ((0, [0, 1, 2]), (500, [1, 2]), (501, [2]), (1e6, [])):
        write_polygons(path, tmp_path / "map.gpkg", VOCABULARY, min_area_m2=least)
        assert read(tmp_path / "map.gpkg")[2]["value"].tolist() == expected
    write_polygons(path, tmp_path / "map.geojson", VOCABULARY, min_area_m2=1e6)
    assert json.loads((tmp_path / "map.geojson").read_text())["features"] == []


def test_simplified_outlines_stay_near_and_keep_their_area(tmp_path):
    rows, columns = np.indices((300, 300))
    disc = np.where((rows - 150) ** 2 + (columns - 150) ** 2 < 100**2, 1, 0).astype(np.uint8)
    path = make_map(tmp_path, labels=disc)
    exact = tmp_path / "exact.gpkg"
    write_polygons(path, exact, VOCABULARY)
    write_polygons(path, tmp_path / "simple.gpkg", VOCABULARY, simplify_m=15.0)
    (_, before, columns_before), (_, after, columns_after) = read(exact), read(tmp_path / "simple.gpkg")
    assert columns_before["area_ha"].tolist() == columns_after["area_ha"].tolist()
    assert shapely.get_num_coordinates(after).sum() < 0.2 * shapely.get_num_coordinates(before).sum()
    assert shapely.is_valid(after).all()
    for old, new in zip(before, after, strict=True):
        assert shapely.hausdorff_distance(old.boundary, new.boundary) <= 15.0 + 1e-6


def test_same_map_same_file(tmp_path):
    path = make_map(tmp_path)
    for name in ("a.gpkg", "b.gpkg", "a.geojson", "b.geojson"):
        write_polygons(path, tmp_path / name, VOCABULARY)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    assert (tmp_path / "a.gpkg").read_bytes() == (tmp_path / "b.gpkg").read_bytes()


def test_batches_are_joined_in_one_file(tmp_path, monkeypatch):
    path = make_map(tmp_path)
    write_polygons(path, tmp_path / "once.geojson", VOCABULARY)
    write_polygons(path, tmp_path / "once.gpkg", VOCABULARY)
    monkeypatch.setattr("mmovseg.inference.scene.polygons._BATCH_CORNERS", 100)
    monkeypatch.setattr("mmovseg.inference.scene.polygons.outlines", lambda source: outlines(source, strip_rows=20))
    for name in ("often.geojson", "often.gpkg"):
        write_polygons(path, tmp_path / name, VOCABULARY)
    for ending in ("geojson", "gpkg"):
        _, once, _ = read(tmp_path / f"once.{ending}")
        _, often, _ = read(tmp_path / f"often.{ending}")
        assert sorted(shapely.to_wkt(once)) == sorted(shapely.to_wkt(often))
        assert len(once) > 100


def test_polygons_are_cut_at_the_date_line(tmp_path):
    labels = np.full((20, 40), 1, dtype=np.uint8)
    labels[5:8, 30:33] = 255
    labels[10, :3] = 2
    # zone 60 ends at the date line
    left = reproject("EPSG:4326", "EPSG:32660", [180.0], [10.0])[0][0] - 20 * 1000
    path = make_map(
        tmp_path, labels=labels, crs=CRS.from_epsg(32660), transform=Affine(1000, 0, left, 0, -1000, 1.11e6)
    )
    write_polygons(path, tmp_path / "map.geojson", VOCABULARY)
    _, polygons, columns = read(tmp_path / "map.geojson")
    wide = polygons[columns["class"] == "road"][0]
    assert wide.geom_type == "MultiPolygon" and wide.is_valid
    assert wide.bounds[0] == -180.0 and wide.bounds[2] == 180.0
    degree = 111.2  # kilometres
    assert wide.area * degree**2 * np.cos(np.deg2rad(10)) == pytest.approx(20 * 40 - 9 - 3, rel=0.02)


@pytest.mark.parametrize("crs", [None, CRS.from_epsg(3857)], ids=["no crs", "web mercator"])
def test_where_areas_are_unknown(tmp_path, crs):
    path = make_map(tmp_path, crs=crs)
    write_polygons(path, tmp_path / "map.gpkg", VOCABULARY)
    meta, polygons, columns = read(tmp_path / "map.gpkg")
    assert np.isnan(columns["area_ha"]).all() and len(polygons) > 100
    for options in ({"min_area_m2": 10.0}, {"simplify_m": 10.0}):
        with pytest.raises(UserError, match="coordinate reference system|shows areas"):
            write_polygons(path, tmp_path / "other.gpkg", VOCABULARY, **options)
    if crs is None:
        assert meta["crs"] is None
        with pytest.raises(UserError, match="write them as .gpkg"):
            write_polygons(path, tmp_path / "map.geojson", VOCABULARY)
    else:
        write_polygons(path, tmp_path / "map.geojson", VOCABULARY)
        first = json.loads((tmp_path / "map.geojson").read_text())["features"][0]
        assert first["properties"]["area_ha"] is None
    assert not (tmp_path / "other.gpkg").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["map.gpkg", "map.geojson"])
def test_a_full_disk_leaves_nothing(tmp_path, name):
    path = make_map(tmp_path)
    with limit_file_size(4000), pytest.raises(UserError, match=f"{name}' cannot be written: ") as error:
        write_polygons(path, tmp_path / name, VOCABULARY)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_run_are_cleared(tmp_path):
    path = make_map(tmp_path)
    left = tmp_path / ".map.gpkg.partial"
    left.mkdir()
    (left / "map.gpkg").write_text("half")
    write_polygons(path, tmp_path / "map.gpkg", VOCABULARY)
    assert not left.exists()
    assert len(read(tmp_path / "map.gpkg")[1]) > 100


def test_a_damaged_map_is_named_and_nothing_is_left(tmp_path):
    path = make_map(tmp_path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(UserError, match="map.tif' is damaged or cut off"):
        write_polygons(path, tmp_path / "map.gpkg", VOCABULARY)
    with pytest.raises(UserError, match="none.tif' cannot be opened"):
        write_polygons(tmp_path / "none.tif", tmp_path / "map.gpkg", VOCABULARY)
    assert list(tmp_path.iterdir()) == [path]


def test_paths_are_checked_before_anything_is_computed(tmp_path):
    path = make_map(tmp_path)
    (tmp_path / "folder.gpkg").mkdir()
    cases = {
        tmp_path / "map.shp": "written as .gpkg or .geojson",
        tmp_path / "folder.gpkg": "is a folder",
        path / "map.gpkg": "Not a directory",
    }
    for target, words in cases.items():
        with pytest.raises(UserError, match=words):
            check_polygon_path(target)
    source = tmp_path / "raster.gpkg"
    source.write_bytes(b"a raster in a GeoPackage")
    with pytest.raises(UserError, match="is an input"):
        check_polygon_path(source, inputs=[source], overwrite=True)


@pytest.mark.parametrize("name", ["mine.gpkg", "mine.geojson"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    target = tmp_path / name
    point = shapely.to_wkb(np.array([shapely.Point(1, 2)]))
    pyogrio.raw.write(target, point, [], [], geometry_type="Point", crs="EPSG:4326")
    with pytest.raises(UserError, match=f"{name}' exists and does not hold polygons of this map"):
        check_polygon_path(target)
    check_polygon_path(target, overwrite=True)
    target.write_bytes(b"no vector file")
    with pytest.raises(UserError, match="exists"):
        check_polygon_path(target)


@pytest.mark.parametrize("name", ["map.gpkg", "map.geojson"])
def test_own_polygons_are_replaced_when_of_the_same_map(tmp_path, name):
    path = make_map(tmp_path)
    write_polygons(path, tmp_path / name, VOCABULARY)
    with rasterio.open(path) as source:
        plan = source.tags()["MMOVSEG_PLAN"]
    check_polygon_path(tmp_path / name, plan=plan)
    check_polygon_path(tmp_path / name)
    with pytest.raises(UserError, match="does not hold polygons of this map"):
        check_polygon_path(tmp_path / name, plan="another")
