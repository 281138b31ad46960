"""OpenEarthMap-SAR: thin and thick clouds with masks, geotags, label ids, val of the source or held out."""

import shutil

import numpy as np
import prepare_oem
import pytest
import rasterio

from mmovseg.data.datasets.check import check_dataset
from mmovseg.testing.trees import fake_scenes, write_tree


@pytest.fixture
def source(tmp_path):
    return write_tree("oem_thick", tmp_path / "source", layout="public", count=2)


@pytest.fixture
def run(source, tmp_path, capsys):
    def run_it(*arguments, output="sets"):
        status = 0
        try:
            prepare_oem.main(["--source", str(source), "--output", str(tmp_path / output), *arguments])
        except SystemExit as stop:
            status = stop.code
        return status, tmp_path / output / "oem", capsys.readouterr().err

    return run_it


def pixels(path):
    with rasterio.open(path) as file:
        return file.read().transpose(1, 2, 0).squeeze()


def test_the_prepared_tree_is_what_was_meant(run, tmp_path):
    status, root, _ = run()
    assert status == 0
    for scene in fake_scenes("oem_thick", count=2):
        folder = root / scene.split
        file = f"{'TrainArea' if scene.split == 'train' else 'ValArea'}_{scene.number}.tif"
        for role in ("optical", "sar", "label"):
            np.testing.assert_array_equal(pixels(folder / role / file), getattr(scene, role))
        for kind in ("thin", "thick"):
            alpha, clouded = pixels(folder / f"cloud_{kind}" / file), pixels(folder / f"optical_{kind}" / file)
            clear = (alpha == 0) & (pixels(folder / f"shadow_{kind}" / file) == 0)
            np.testing.assert_array_equal(clouded[clear], scene.optical[clear])
            assert (clouded != scene.optical).any()
        with rasterio.open(folder / "optical_thick" / file) as raster:
            assert raster.crs.to_epsg() == 32654 and raster.transform == scene.place["transform"]
    thin, thick = (
        np.concatenate([pixels(path).ravel() for path in sorted(root.rglob(f"cloud_{kind}/*"))])
        for kind in ("thin", "thick")
    )
    assert thin.max() < 0.85 * 255 < thick.max()  # veils let the ground through, thick clouds do not
    assert check_dataset("oem_thick", root=tmp_path / "sets") == check_dataset("oem_thin", root=tmp_path / "sets") == []


def test_val_may_be_held_out(run, source):
    shutil.rmtree(source / "dfc25_track1_trainval/val/rgb_images")
    status, root, err = run()
    assert status == 2 and "no optical images of them" in err and "--holdout 0.1" in err and not root.exists()
    status, root, _ = run("--holdout", "0.5")
    assert status == 0
    stems = {split: {path.stem for path in (root / split / "label").iterdir()} for split in ("train", "val")}
    assert len(stems["train"]) == len(stems["val"]) == 1
    assert stems["train"] | stems["val"] == {"TrainArea_1", "TrainArea_2"}
    status, _, err = run("--holdout", "1.5")
    assert status == 2 and "--holdout must lie between 0 and 1, got 1.5" in err


def test_val_may_lie_anywhere(run, source, tmp_path):
    folders = [tmp_path / "elsewhere" / name for name in ("a", "b", "c")]
    for role, target in zip(("rgb_images", "sar_images", "labels"), folders, strict=True):
        shutil.copytree(source / "dfc25_track1_trainval/val" / role, target)
    expected = sorted((run(output="as_published")[1] / "val").rglob("*.tif"))
    shutil.rmtree(source / "dfc25_track1_trainval/val")
    status, root, _ = run("--val-folders", *map(str, folders))
    assert status == 0 and len(expected) == 2 * 9
    for path in expected:
        assert (root / path.relative_to(path.parents[2])).read_bytes() == path.read_bytes()


def test_scenes_can_be_cut(run, source):
    status, root, _ = run("--tile-size", "16", "--kinds", "thin")
    assert status == 0 and len(list((root / "train/optical_thin").iterdir())) == 2 * 4
    assert not (root / "train/optical_thick").exists()
    whole = run(output="whole")[1]
    with rasterio.open(root / "train/label/TrainArea_1_r00016_c00000.tif") as tile:
        with rasterio.open(whole / "train/label/TrainArea_1.tif") as scene:
            np.testing.assert_array_equal(tile.read(1), scene.read(1)[16:, :16])
            assert tile.bounds.left == scene.bounds.left and tile.bounds.bottom == scene.bounds.bottom


@pytest.mark.slow  # importing the package takes seconds
def test_the_other_cloud_generator(run):
    pytest.importorskip("satellite_cloud_generator")
    status, root, _ = run("--cloud-generator", "satellite-cloud-generator")
    assert status == 0
    own = run(output="own")[1]
    for kind in ("thin", "thick"):
        alpha = pixels(root / f"train/cloud_{kind}/TrainArea_1.tif")
        assert alpha.max() > 0 and not np.array_equal(alpha, pixels(own / f"train/cloud_{kind}/TrainArea_1.tif"))
    status, _, err = run()
    assert status == 2 and "was begun with clouds = 'satellite-cloud-generator', not 'own'" in err
