"""All files of a scene are checked before any work: none is an input, none is another one, none is somebody else's."""

import json
import os

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmovseg.errors import UserError
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.outputs import check_outputs, layer_suffixes
from mmovseg.inference.scene.rasters import SceneInputs, ScenePair
from mmovseg.testing.fakes import write_raster

PLAN = "abc123"
REPORT = {"classes": {}, "plan": {}, "resident_mib": {}}


def check(output, *, inputs=(), clouds=False, **options):
    check_outputs(output, options=SceneOptions(**options), plan=PLAN, inputs=inputs, clouds=clouds)


def write_vrt(path, source):
    band = f'<SimpleSource><SourceFilename relativeToVRT="1">{os.path.basename(source)}</SourceFilename></SimpleSource>'
    place = "<SRS>EPSG:32631</SRS><GeoTransform>600000, 10, 0, 5700000, 0, -10</GeoTransform>"
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{i}">{band}</VRTRasterBand>' for i in (1, 2, 3))
    path.write_text(f'<VRTDataset rasterXSize="20" rasterYSize="20">{place}{bands}</VRTDataset>')
    return path


def write_picture(path, plan=None):
    tags = PngImagePlugin.PngInfo()
    if plan is not None:
        tags.add_text("MMOVSEG_PLAN", plan)
    Image.new("RGB", (4, 4)).save(path, pnginfo=tags)


@pytest.mark.parametrize("polygons", ["m.json", "other/../m.json", "link/m.json"])
def test_two_outputs_are_two_files(tmp_path, monkeypatch, polygons):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="m.json' cannot hold both the report and the polygons"):
        check("m.tif", polygons=polygons)
    check("m.tif", polygons="m.geojson", picture="m.png", confidence=True)
    (tmp_path / "m.geojson").write_text("{}")
    os.link(tmp_path / "m.geojson", tmp_path / "m.confidence.tif")  # one file under two names
    with pytest.raises(UserError, match="the confidence of the map and the polygons"):
        check("m.tif", polygons="m.geojson", confidence=True, overwrite=True)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("m.tif", {}),
        ("m.quality.tif", {}),
        ("m.json", {}),
        ("p.gpkg", {"polygons": "p.gpkg"}),
        ("p.png", {"picture": "p.png"}),
    ],
)
def test_no_output_is_an_input(tmp_path, monkeypatch, source, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / source).write_bytes(b"a raster")
    with pytest.raises(UserError, match=f"{source}' is an input"):
        check("m.tif", inputs=[tmp_path / source], clouds=True, overwrite=True, **options)


@pytest.mark.parametrize("depth", [1, 2])
def test_files_behind_an_input_are_inputs(tmp_path, depth):
    source = write_raster(tmp_path / "map.tif", np.full((20, 20, 3), 9, np.uint8))
    top = write_vrt(tmp_path / "1.vrt", source)
    if depth == 2:
        top = write_vrt(tmp_path / "2.vrt", top)
    with ScenePair(SceneInputs(optical=str(top))) as pair:
        files = [path for path, *_ in pair.identity["files"]["optical"]]
    assert str(source) in files
    with pytest.raises(UserError, match="map.tif' is an input"):
        check(source, inputs=files, overwrite=True)


@pytest.mark.parametrize("name", ["m.tif", "m.probabilities.tif", "m.json", "p.geojson", "p.png"])
def test_a_folder_or_a_pipe_in_the_way(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    options = {"probabilities": True, "polygons": "p.geojson", "picture": "p.png", "overwrite": True}
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name}' is a folder"):
        check("m.tif", **options)
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}' is a pipe"):
        check("m.tif", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"picture": "/proc/nowhere/p.png"}, "/proc/nowhere/p.png' cannot be written"),
        ({"polygons": "/proc/nowhere/p.gpkg"}, "/proc/nowhere/p.gpkg' cannot be written"),
        ({"picture": "p.PNG"}, "must end in .png"),
        ({"polygons": "p.shp"}, "written as .gpkg or .geojson"),
    ],
)
def test_what_could_not_be_written(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        check(tmp_path / "m.tif", **options)
    with pytest.raises(UserError, match="must end in .tif"):
        check(tmp_path / "m.png")


def test_only_what_is_ours_is_replaced(tmp_path):
    output, picture = tmp_path / "m.tif", tmp_path / "p.png"
    for plan in (None, "another"):
        write_picture(picture, plan)
        with pytest.raises(UserError, match="p.png' exists and is not the picture of this map"):
            check(output, picture=str(picture))
        check(output, picture=str(picture), overwrite=True)
    picture.write_bytes(b"no picture")
    with pytest.raises(UserError, match="not the picture of this map"):
        check(output, picture=str(picture))
    write_picture(picture, PLAN)
    check(output, picture=str(picture))
    report = tmp_path / "m.json"
    for content in ("[]", "no json", json.dumps({"classes": {}})):
        report.write_text(content)
        with pytest.raises(UserError, match="m.json' is where the report goes"):
            check(output)
        check(output, overwrite=True)
    report.write_text(json.dumps(REPORT))
    check(output)


def test_a_cloud_mask_brings_quality():
    assert layer_suffixes(SceneOptions(), clouds=True) == ["", "quality"]
    assert layer_suffixes(SceneOptions(probabilities=True, confidence=True), clouds=False) == [
        "",
        "confidence",
        "probabilities",
    ]
