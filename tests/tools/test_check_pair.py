"""check_pair: what is said of two rasters, and that nothing is moved."""

from __future__ import annotations

import json

import check_pair as tool
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmovseg.data.miniearth.scenes import write_miniearth_scene
from mmovseg.errors import UserError
from mmovseg.inference.check_pair import acquisition_date, check_pair, days_between
from mmovseg.inference.scene.rasters import SceneInputs


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair") / "scene"
    write_miniearth_scene(root, height=360, width=400, clouds="varied", cloud_cover=0.4, seed=2)
    return root


def _moved(scene, tmp_path, down, right):
    """Write a SAR raster whose georeference is wrong: its content lies (down, right) pixels further."""
    path = tmp_path / "moved.tif"
    with rasterio.open(scene / "sar.tif") as source:
        transform = source.transform
        profile = source.profile | {
            "transform": Affine(2.5, 0, transform.c + 2.5 * right, 0, -2.5, transform.f - 2.5 * down)
        }
        with rasterio.open(path, "w", **profile) as target:
            target.write(source.read())
            target.update_tags(ACQUISITION_DATE="20240310", unit="db")
    return path


def test_a_pair_that_fits(scene, capsys):
    before = (scene / "sar.tif").read_bytes()
    assert tool.main(["--optical", str(scene / "optical.tif"), "--sar", str(scene / "sar.tif")]) == 0
    out = capsys.readouterr().out
    assert "They fit: what SAR shows lies" in out and "100.0 % of the optical raster" in out
    assert (scene / "sar.tif").read_bytes() == before


def test_a_wrong_georeference_is_found_and_drawn(scene, tmp_path, capsys):
    moved, (picture, file) = _moved(scene, tmp_path, 6, -9), (tmp_path / "p.png", tmp_path / "r.json")
    words = [
        "--optical",
        str(scene / "optical.tif"),
        "--sar",
        str(moved),
        "--picture",
        str(picture),
        "--json",
        str(file),
    ]
    assert tool.main(words) == 0
    report = json.loads(file.read_text())
    shift = report["shift"]
    assert np.hypot(shift["down_px"] - 6, shift["right_px"] + 9) <= 1.0 and shift["is_sure"]
    assert shift["metres"] == pytest.approx(2.5 * np.hypot(6, 9), abs=2.5)
    assert report["overlap_share"] == pytest.approx((360 - 6) * (400 - 9) / (360 * 400), abs=0.01)
    assert report["sar"]["date"] == "2024-03-10" and report["days_apart"] is None
    assert "They are shifted" in capsys.readouterr().out
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 20_000


def test_a_coarser_raster_is_compared_at_its_own_pixels(tmp_path):
    root = tmp_path / "scene"
    manifest = write_miniearth_scene(root, height=700, width=640, sar_crs="EPSG:32633", sar_gsd_m=5.0)
    inputs = SceneInputs(optical=str(root / "optical.tif"), sar=str(root / "sar.tif"), sar_unit="db")
    report = check_pair(inputs)
    assert manifest["grids"]["sar"]["transform"][0] == 5.0
    assert report["gsd_ratio"] == pytest.approx(2.0) and report["shift"]["step_px"] == pytest.approx(2.0, rel=0.1)
    assert report["shift"]["is_sure"] and report["shift"]["length_px"] < 2.0


def test_the_smallest_search_gives_a_report_in_numbers(scene, tmp_path):
    file = tmp_path / "r.json"
    words = ["--optical", str(scene / "optical.tif"), "--sar", str(scene / "sar.tif"), "--search", "11"]
    assert tool.main([*words, "--windows", "1", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["shift"]["is_sure"]


def test_two_places_cannot_be_told(scene, tmp_path):
    path = tmp_path / "noise.tif"
    with rasterio.open(scene / "sar.tif") as source:
        profile = source.profile
        with rasterio.open(path, "w", **profile) as target:
            target.write(np.random.default_rng(0).normal(-12, 3, (2, 360, 400)).astype(np.float32))
    report = check_pair(SceneInputs(optical=str(scene / "optical.tif"), sar=str(path), sar_unit="db"))
    assert not report["shift"]["is_sure"] and "cannot be told" in report["verdict"]


@pytest.mark.parametrize(
    ("tags", "item", "day"),
    [
        ({"TIFFTAG_DATETIME": "2023:05:06 11:22:33"}, None, "2023-05-06"),
        (
            {"TIFFTAG_DATETIME": "2023:05:06 11:22:33", "ACQUISITION_START_TIME": "2022-01-02T03:04:05Z"},
            None,
            "2022-01-02",
        ),
        ({}, {"properties": {"datetime": "2021-12-31T23:59:59Z"}}, "2021-12-31"),
        ({}, {"properties": {"datetime": None, "start_datetime": "2021-12-30"}}, "2021-12-30"),
        ({"ACQUISITION_DATE": "not known", "TIFFTAG_DATETIME": "2023:13:40"}, None, None),
        ({}, ["no item"], None),
    ],
)
def test_dates_come_from_tags_or_an_item(tmp_path, tags, item, day):
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", height=2, width=2, count=1, dtype="uint8") as raster:
        raster.update_tags(**tags)
    if item is not None:
        path.with_suffix(".json").write_text(json.dumps(item))
    assert acquisition_date(path) == day


def test_days_between_dates():
    assert days_between("2024-03-01", "2024-02-28") == 2 and days_between(None, "2024-02-28") is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sar", "none.tif"], "none.tif' does not exist"),
        (["--search", "2"], "search must be at least 11 pixels and windows at least 1, got 2 and 5"),
        (["--search", "10"], "search must be at least 11 pixels"),
        (["--windows", "0"], "windows at least 1"),
        (["--sar-nodata", "inf"], "--sar-nodata is inf"),
        (["--sar-unit", "watts"], "watts"),
    ],
)
def test_mistakes_are_one_line(scene, capsys, words, message):
    given = ["--optical", str(scene / "optical.tif"), "--sar", str(scene / "sar.tif"), *words]
    with pytest.raises(SystemExit) as stopped:
        tool.main(given)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--json", "sar.tif", "must end in .json"),
        ("--picture", "optical.tif", "must end in .png"),
        ("--picture", "drawn", "must end in .png"),
        ("--json", "linked.json", "is an input and would be written over"),
        ("--picture", "linked.png", "is an input and would be written over"),
        ("--json", "none.tif/report.json", "cannot be written"),
    ],
)
def test_nothing_is_written_over_a_raster(scene, tmp_path, capsys, monkeypatch, option, name, message):
    for file in ("optical.tif", "sar.tif"):
        (tmp_path / file).write_bytes((scene / file).read_bytes())
    (tmp_path / "linked.json").symlink_to(tmp_path / "sar.tif")
    (tmp_path / "linked.png").hardlink_to(tmp_path / "optical.tif")
    (tmp_path / "none.tif").touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("mmovseg.inference.check_pair.ScenePair", None)  # refused before a raster is opened
    words = ["--optical", str(tmp_path / "optical.tif"), "--sar", str(tmp_path / "sar.tif")]
    with pytest.raises(SystemExit) as stopped:
        tool.main([*words, option, str(tmp_path / name)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and name in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_small_or_single_rasters_are_refused(scene, tmp_path):
    with pytest.raises(UserError, match="one of them is missing"):
        check_pair(SceneInputs(sar=str(scene / "sar.tif")))
    write_miniearth_scene(tmp_path / "small", height=40, width=90)
    small = {kind: str(tmp_path / "small" / f"{kind}.tif") for kind in ("optical", "sar")}
    with pytest.raises(UserError, match="40x90 pixels at the size of the coarser raster"):
        check_pair(SceneInputs(**small))
