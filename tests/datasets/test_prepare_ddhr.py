"""DDHR: both regions prepared from the public tree; label orders; clouds in the download or not."""

import numpy as np
import prepare_ddhr
import pytest
import rasterio

from mmovseg.data.datasets.check import check_dataset
from mmovseg.data.datasets.manifest import read_manifest
from mmovseg.testing.trees import fake_scenes, write_tree


@pytest.fixture
def source(tmp_path):
    for name in ("ddhr_sk", "ddhr_ch"):
        write_tree(name, tmp_path / "source", layout="public", count=2)
    return tmp_path / "source"


@pytest.fixture
def run(source, tmp_path, capsys):
    def run_it(*arguments):
        status = 0
        try:
            prepare_ddhr.main(["--source", str(source), "--output", str(tmp_path / "sets"), *arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run_it


def pixels(path):
    with rasterio.open(path) as file:
        return file.read().transpose(1, 2, 0).squeeze()


def test_both_regions_are_prepared(run, tmp_path):
    assert run()[0] == 0
    for name in ("ddhr_sk", "ddhr_ch"):
        for scene in fake_scenes(name, count=2):
            folder, file = tmp_path / "sets" / name / scene.split, f"{scene.number}.png"
            assert {path.name for path in folder.iterdir()} == {"optical_cloud", "sar", "label"}
            np.testing.assert_array_equal(pixels(folder / "label" / file), scene.label)
            sar, optical = pixels(folder / "sar" / file), pixels(folder / "optical_cloud" / file)
            assert sar.shape == (32, 32)  # three equal bands in the JPEG, one here
            assert np.abs(sar.astype(int) - scene.sar).mean() < 8  # JPEG
            assert np.abs(optical.astype(int) - scene.clouded).mean() < 8
        assert check_dataset(name, root=tmp_path / "sets") == []
    assert read_manifest(tmp_path / "sets/ddhr_sk")["made_by"]["clouds"] == "of the download"


def test_label_order_of_xian(run, tmp_path):
    korean = "city, road, forest, water, farmland"
    assert run("--regions", "ch", "--ch-label-order", korean)[0] == 0
    assert not (tmp_path / "sets/ddhr_sk").exists()
    for scene in fake_scenes("ddhr_ch", count=2):
        label = pixels(tmp_path / f"sets/ddhr_ch/val/label/{scene.number}.png")
        # forest is stored as 2 there and is 3 of `ddhr_ch`; water 3 -> 4, farmland 4 -> 2
        np.testing.assert_array_equal(label, np.array([0, 1, 3, 4, 2] + [255] * 251)[scene.label])


def test_a_clear_download_is_clouded(run, source, tmp_path):
    assert run("--regions", "sk", "--optical", "clear")[0] == 0
    folder = tmp_path / "sets/ddhr_sk/train"
    assert {path.name for path in folder.iterdir()} == {"optical", "optical_cloud", "cloud", "shadow", "sar", "label"}
    assert (pixels(folder / "cloud/1.png") > 0).any()


def test_a_region_may_be_absent_or_elsewhere(run, source, tmp_path):
    (source / "DDHR-DATA/xian").rename(source / "DDHR-DATA/area51")
    status, out, _ = run()
    assert status == 0 and "ddhr_ch: not in the source (looked for xian" in out
    status, _, err = run("--regions", "ch")
    assert status == 2 and "no folder xian or xi'an" in err and "--ch-folder" in err
    assert run("--regions", "ch", "--ch-folder", "area51/256_cloud")[0] == 0
    assert check_dataset("ddhr_ch", root=tmp_path / "sets") == []
    status, _, err = run("--ch-folder", "area52")
    assert status == 2 and "area52" in err
    (source / "DDHR-DATA/korea").rename(source / "DDHR-DATA/area50")
    status, _, err = run()
    assert status == 2 and "neither Pohang (korea) nor Xi'an" in err


def test_split_lists(run, source, tmp_path):
    (source / "DATA/valM_list.txt").rename(tmp_path / "mine.txt")
    status, _, err = run("--regions", "sk")
    assert status == 2 and "no split list was found for: val" in err and "XD-MG/DDHRNet" in err
    assert run("--regions", "sk", "--val-list", str(tmp_path / "mine.txt"))[0] == 0
    assert sorted(path.stem for path in (tmp_path / "sets/ddhr_sk/val/sar").iterdir()) == ["3", "4"]


def test_a_wrong_label_order_is_refused(run):
    status, _, err = run("--ch-label-order", "city,road")
    assert status == 2 and "must name each of city, road, farmland, forest, water once, got 'city,road'" in err
