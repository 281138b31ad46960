"""SpaceNet 6: the public archive prepared, checked, loaded; bad input; and the real sample."""

import json
import re
import shutil
import tarfile

import numpy as np
import prepare_spacenet6
import pytest
import rasterio
from rasterio.warp import transform_geom

from mmovseg.data.datasets import catalog, get_dataset
from mmovseg.data.datasets.check import check_dataset
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.realdata import realdata_root
from mmovseg.testing.trees_spacenet6 import AOI, STRIPS, write_tree

HOLE = 6


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("download"), layout="public", count=2)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the script into tmp_path/sets, also the root of `get_dataset`; returns (exit status, stdout, stderr)."""
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))

    def run_it(source, *options):
        status = 0
        try:
            prepare_spacenet6.main(["--source", str(source), "--output", str(tmp_path / "sets"), *map(str, options)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    run_it.root = tmp_path / "sets"
    return run_it


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_archive_becomes_the_prepared_tree(download, run, tmp_path):
    with tarfile.open(tmp_path / "SN6_buildings_AOI_11_Rotterdam_train.tar.gz", "w:gz") as archive:
        archive.add(download / "train", "train")
    status, out, _ = run(tmp_path / "SN6_buildings_AOI_11_Rotterdam_train.tar.gz")
    assert status == 0 and "4 tiles written, 0 were there (train 2, val 2, across the border 1)" in out
    expected = write_tree(tmp_path / "expected", layout="own", count=2)
    for path in sorted((expected / "spacenet6").rglob("*.tif")):
        with rasterio.open(path) as wanted, rasterio.open(run.root / path.relative_to(expected)) as made:
            np.testing.assert_array_equal(made.read(), wanted.read(), err_msg=path.name)
            assert made.crs == wanted.crs and made.transform == wanted.transform, path.name
            assert str(made.nodata) == str(wanted.nodata), path.name
    assert [fault.kind for fault in check_dataset("spacenet6", root=run.root)] == []
    assert [fault.kind for fault in check_dataset("spacenet6", root=expected)] == []
    with rasterio.open(next((run.root / "spacenet6/train/sar").iterdir())) as made:
        assert made.descriptions == ("HH", "HV", "VH", "VV")


def test_it_loads_through_the_mapper(download, run):
    assert run(download)[0] == 0
    dicts = get_dataset("spacenet6_train")
    assert [item["image_id"].partition("_tile_")[0] in STRIPS for item in dicts] == [True, True]
    mapper = OpticalSARMapper(
        is_train=False, vocabulary=get_vocabulary("spacenet6"), reader=FileReader(sar_unit_in="db")
    )
    item = mapper(dicts[0])
    assert item["sem_seg"][:, :HOLE].unique().tolist() == [255] and not item["sar_valid"][:, :HOLE].any()
    assert not item["valid"][:, :HOLE].any() and item["valid"][:, HOLE:].all() and item["sar_valid"][:, HOLE:].all()
    building = item["sem_seg"] == 1
    assert building.sum() == 12 * 12 and item["sar"].shape == (4, 48, 48)
    for key in ("image", "sar"):
        assert item[key][:, building].float().mean() > item[key][:, item["sem_seg"] == 0].float().mean() + 5


def test_an_interrupted_run_is_continued_and_ends_alike(download, run, tmp_path):
    assert run(download)[0] == 0
    whole = contents(run.root)
    removed = sorted((run.root / "spacenet6").rglob("*.tif"))[::3]
    for path in removed:
        path.unlink()
    (run.root / "spacenet6/val/sar/.x.tif.partial-1").write_bytes(b"half")
    status, out, _ = run(download)
    assert status == 0 and "0 tiles written" not in out and contents(run.root) == whole
    status, _, err = run(download, "--border", 595_300)
    assert status == 2 and "was begun with border_easting = 595310.0, not 595300.0" in err


def test_one_side_only(download, run):
    status, out, _ = run(download, "--orientation", "south")
    assert status == 0 and "2 tiles written" in out
    strips = {path.name.partition("_tile_")[0] for path in (run.root / "spacenet6").rglob("*.tif")}
    assert strips == {strip for strip, side in STRIPS.items() if side == 1}


def test_linear_power_becomes_db(download, run, tmp_path):
    assert run(download, "--sar-unit", "linear")[0] == 0
    name = next((run.root / "spacenet6/val/sar").iterdir()).stem
    with rasterio.open(
        download / AOI / "SAR-Intensity" / f"SN6_Train_AOI_11_Rotterdam_SAR-Intensity_{name}.tif"
    ) as file:
        power = file.read()[:, :, HOLE:]
    with rasterio.open(run.root / f"spacenet6/val/sar/{name}.tif") as file:
        np.testing.assert_allclose(file.read()[:, :, HOLE:], 10 * np.log10(power), atol=1e-4)


def test_footprints_in_longitude_and_latitude_are_moved_to_the_grid(download, run, tmp_path):
    copy = shutil.copytree(download, tmp_path / "copy")
    for path in (copy / AOI / "geojson_buildings").iterdir():
        content = json.loads(path.read_text())
        del content["crs"]
        for feature in content["features"]:
            feature["geometry"] = transform_geom("EPSG:32631", "EPSG:4326", feature["geometry"])
        path.write_text(json.dumps(content))
    assert run(download)[0] == 0
    labels = {path.name: path for path in (run.root / "spacenet6").rglob("label/*.tif")}
    shutil.move(run.root / "spacenet6", tmp_path / "metric")
    assert run(copy)[0] == 0
    for name, path in labels.items():
        with (
            rasterio.open(path) as moved,
            rasterio.open(tmp_path / "metric" / path.relative_to(run.root / "spacenet6")) as file,
        ):
            assert (moved.read() != file.read()).sum() <= 4, name  # a corner pixel may round the other way


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda aoi: shutil.rmtree(aoi / "PS-RGB"), r"the optical tiles: no folder 'PS-RGB'"),
        (lambda aoi: next((aoi / "PS-RGB").iterdir()).unlink(), r"has no optical file beside its SAR file"),
        (lambda aoi: first(aoi, "geojson_buildings").write_text("{"), r"\.geojson' is not valid JSON"),
        (lambda aoi: first(aoi, "geojson_buildings").write_text("[1]"), r"is no GeoJSON FeatureCollection"),
        (lambda aoi: set_geometry(aoi, {"type": "Point", "coordinates": [1, 2]}), r"no polygon: Point"),
        (lambda aoi: set_crs(aoi, "urn:ogc:def:crs:EPSG::99999999"), r"unknown coordinate system"),
        (lambda aoi: write_raster(first(aoi, "SAR-Intensity"), np.ones((8, 8), np.float32)), r"1 bands; four"),
        (lambda aoi: cut_off(first(aoi, "SAR-Intensity")), r"SAR-Intensity_\S+\.tif' is damaged"),
        (lambda aoi: resize(first(aoi, "PS-RGB")), r"differ in size: optical 20x20, sar 48x48"),
    ],
    ids=["no-folder", "no-partner", "json", "geojson", "point", "crs", "bands", "cut-off", "size"],
)
def test_bad_downloads_are_named(download, run, tmp_path, spoil, message):
    copy = shutil.copytree(download, tmp_path / "copy")
    spoil(copy / AOI)
    status, _, err = run(copy)
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and re.search(message, sentence), sentence


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20190804111224_20190804111453 0\n", "does not list the strip '20190822065725_20190822065959' of tile"),
        ("20190804111224_20190804111453 north\n", "has the line '20190804111224_20190804111453 north'"),
    ],
)
def test_bad_orientations_are_named(download, run, tmp_path, text, message):
    copy = shutil.copytree(download, tmp_path / "copy")
    (copy / AOI / "SummaryData/SAR_orientations.txt").write_text(text)
    status, _, err = run(copy, "--orientation", "north")
    assert status == 2 and message in err


def test_a_border_beside_the_city_is_named(download, run):
    status, _, err = run(download, "--border", 1e6)
    assert status == 2 and "no tile lies east of --border 1e+06: val is empty" in err and not run.root.exists()


def first(aoi, folder):
    return sorted((aoi / folder).iterdir())[0]


def change(aoi, edit):
    path = first(aoi, "geojson_buildings")
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def set_geometry(aoi, geometry):
    change(aoi, lambda content: content["features"][0].update(geometry=geometry))


def set_crs(aoi, name):
    change(aoi, lambda content: content["crs"]["properties"].update(name=name))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:200])


def resize(path):
    write_raster(path, np.full((20, 20, 3), 9, np.uint8))


@pytest.mark.realdata
def test_a_real_place(tmp_path):
    """SAR in dB with holes on a grid of 4.5 m; the footprint is made up, since the sample has none."""
    root = realdata_root()
    if root is None:
        pytest.skip("no folder of real samples (MMOVSEG_REALDATA, default ../shared/data)")
    folder = root / "spacenet6_rotterdam"
    optical, sar = folder / "opt_rgb_200.tif", folder / "sar_quadpol_db_200.tif"
    with rasterio.open(sar) as file:
        values, place = file.read(), file.transform
    ring = [[place.c + place.a * col, place.f + place.e * row] for row, col in ((10, 20), (10, 60), (50, 60), (50, 20))]
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    content = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    (tmp_path / "footprints.geojson").write_text(json.dumps(content))
    layers = prepare_spacenet6.make_tile(
        optical=optical, sar=sar, footprints=tmp_path / "footprints.geojson", sar_unit="db"
    )
    hole = ~np.isfinite(values).all(axis=0)
    label = layers["label"].array
    assert 0.3 < hole.mean() < 0.5 and (label[hole] == 255).all()
    expected = np.zeros_like(label)
    expected[10:50, 20:60] = 1
    np.testing.assert_array_equal(label[~hole], expected[~hole])
    np.testing.assert_array_equal(layers["sar"].array.transpose(2, 0, 1)[:, ~hole], values[:, ~hole])
    assert layers["optical"].array.shape == (200, 200, 3) and layers["sar"].crs.to_epsg() == 32631
