"""MiniEarth on disk: the same pixels, georeferenced, whole or not at all."""

from __future__ import annotations

import json

import make_miniearth
import numpy as np
import pytest
import rasterio

from mmovseg.data.io import FileReader
from mmovseg.data.miniearth import MiniEarthReader, load_miniearth, render
from mmovseg.data.miniearth.export import (
    load_miniearth_folder,
    read_manifest,
    verify_miniearth_folder,
    world_transform,
    write_miniearth_folder,
    write_scene,
)
from mmovseg.data.miniearth.regions import TARGET_CATEGORIES
from mmovseg.errors import UserError

COUNT = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("written") / "world"
    write_miniearth_folder(root, splits=("val", "test"), num_scenes=COUNT, size=48)
    return root


@pytest.mark.parametrize("split", ["val", "test"])
def test_folder_equals_generated(folder, split):
    generated, read = MiniEarthReader(), FileReader()
    on_disk = load_miniearth_folder(folder, split)
    expected = load_miniearth(split, num_scenes=COUNT, size=48)
    assert len(on_disk) == COUNT
    for item, source in zip(on_disk, expected, strict=True):
        sample, truth = read(item), generated(source)
        assert np.array_equal(sample.optical, truth.optical)
        assert np.array_equal(sample.sar, truth.sar)
        assert np.array_equal(sample.sem_seg, truth.sem_seg)
        assert sample.captions == truth.captions
        assert sample.optical_valid.all() and sample.sar_valid.all()
        assert (item["image_id"], item["gsd_m"]) == (source["image_id"], source["gsd_m"])


def test_rasters_say_what_they_hold(folder):
    item = load_miniearth_folder(folder, "val")[0]
    world = load_miniearth("val", num_scenes=1, size=48)[0]["world"]
    with rasterio.open(item["file_name"]) as raster:
        assert raster.dtypes == ("uint8",) * 3 and raster.crs.to_epsg() == 32632
        assert raster.transform == world_transform(world["row"], world["col"], 2.5)
    with rasterio.open(item["sar_file_name"]) as raster:
        assert raster.descriptions == ("VV", "VH") and raster.dtypes == ("float32",) * 2
        assert raster.units == ("dB sigma nought",) * 2 and raster.tags()["looks"] == "4"
    with rasterio.open(item["sem_seg_file_name"]) as raster:
        assert raster.nodata == 255 and raster.colormap(1)[6] == (52, 126, 214, 255)
        assert raster.tags()["class_6"] == "water"


def test_neighbouring_windows_fit(tmp_path):
    bounds = {}
    for name, row, col in (("here", 70, 100), ("right", 70, 140), ("below", 102, 100)):
        paths = [tmp_path / f"{name}_{kind}.tif" for kind in ("optical", "sar", "label")]
        write_scene(render("default", row, col, 32, 40), *paths)
        opened = []
        for path in paths:
            with rasterio.open(path) as raster:
                opened.append(raster.bounds)
        assert opened[0] == opened[1] == opened[2]
        bounds[name] = opened[0]
    here, right, below = bounds["here"], bounds["right"], bounds["below"]
    assert tuple(here) == (300_250.0, 5_899_745.0, 300_350.0, 5_899_825.0)
    assert here.right == right.left and (here.top, here.bottom) == (right.top, right.bottom)
    assert here.bottom == below.top and (here.left, here.right) == (below.left, below.right)


def test_targets_are_coco(folder):
    content = json.loads((folder / "test" / "targets.json").read_text(encoding="utf-8"))
    assert [category["name"] for category in content["categories"]] == list(TARGET_CATEGORIES)
    reader = MiniEarthReader()
    for image, item in zip(content["images"], load_miniearth("test", num_scenes=COUNT, size=48), strict=True):
        boxes = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
        truth = [target["box"] for target in reader(item).facts["targets"]]
        assert boxes == [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in truth]
    ids = [annotation["id"] for annotation in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_same_arguments_give_same_bytes(folder, tmp_path):
    manifest = write_miniearth_folder(tmp_path / "again", splits=("val", "test"), num_scenes=COUNT, size=48)
    assert manifest == read_manifest(folder)
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert verify_miniearth_folder(folder) == 2 * (3 * COUNT + 2)


def test_changed_file_is_found(tmp_path):
    root = tmp_path / "world"
    write_miniearth_folder(root, splits=("val",), num_scenes=1, size=32)
    victim = root / "val" / "sar" / "miniearth_val_000000.tif"
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"miniearth_val_000000\.tif' differs"):
        verify_miniearth_folder(root)
    victim.unlink()
    with pytest.raises(UserError, match="lacks the file 'val/sar/miniearth_val_000000"):
        verify_miniearth_folder(root)


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmovseg.data.miniearth.export.write_scene", fail)
    with pytest.raises(UserError, match="No space left on device"):
        write_miniearth_folder(tmp_path / "world", splits=("val",), num_scenes=2, size=32)
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="no MiniEarth folder"):
        load_miniearth_folder(tmp_path, "val")
    with pytest.raises(UserError, match="no split 'train'; it has: val, test"):
        load_miniearth_folder(folder, "train")


def test_command_writes_and_verifies(tmp_path, capsys):
    root = tmp_path / "world"
    command = ["--output", str(root), "--split", "val", "--num-scenes", "2", "--size", "32", "--contact-sheet"]
    make_miniearth.main(command)
    assert (root / "contact_sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert "val: 2 scenes" in capsys.readouterr().out
    make_miniearth.main(["--output", str(root), "--verify"])
    assert "8 files" in capsys.readouterr().out


def test_command_refuses_a_folder_with_something_in_it(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        make_miniearth.main(["--output", str(tmp_path), "--num-scenes", "1"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: output folder") and message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("domain", ["unseen_complex", "amplitude8"])
def test_contact_sheet_of_other_units(tmp_path, domain):
    reader = MiniEarthReader()
    samples = [reader(item) for item in load_miniearth("val", num_scenes=1, size=32, domain=domain)]
    make_miniearth.draw_contact_sheet(tmp_path / "sheet.png", samples, domain)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
