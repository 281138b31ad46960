"""PIE-RGB-SAR: the public tree prepared; splits, clouds and codes in every form that the download may have."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import prepare_pie
import pytest
import rasterio

from mmovseg.data.datasets import get_dataset, register_all
from mmovseg.data.datasets.check import check_dataset
from mmovseg.data.datasets.manifest import read_manifest
from mmovseg.data.prepare import split_stems
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.trees import fake_scenes, write_tree

SCENES = {str(scene.number): scene for scene in fake_scenes("pie_cloud", count=2)}


@pytest.fixture
def source(tmp_path):
    return write_tree("pie_cloud", tmp_path / "source", layout="public", count=2) / "PIE-RGB-SAR"


@pytest.fixture
def run(source, tmp_path, capsys):
    """Run the script; returns (exit status, output folder of the set, stderr)."""

    def run_it(*arguments):
        status = 0
        try:
            prepare_pie.main(["--source", str(source.parent), "--output", str(tmp_path / "sets"), *arguments])
        except SystemExit as stop:
            status = stop.code
        return status, tmp_path / "sets/pie", capsys.readouterr().err

    return run_it


def pixels(path):
    with rasterio.open(path) as file:
        return file.read().transpose(1, 2, 0).squeeze()


def test_the_prepared_tree_is_what_was_meant(run, tmp_path):
    status, root, _ = run()
    assert status == 0
    assert {path.name for path in root.iterdir()} == {"train", "val", "manifest.json", "prepare.json"}
    for stem, scene in SCENES.items():
        folder = root / scene.split
        assert {path.name for path in folder.iterdir()} == {
            *("optical", "optical_cloud", "cloud", "shadow", "sar", "label")
        }
        for role in ("optical", "sar", "label"):
            np.testing.assert_array_equal(pixels(folder / role / f"{stem}.png"), getattr(scene, role))
        clouded, alpha = pixels(folder / f"optical_cloud/{stem}.png"), pixels(folder / f"cloud/{stem}.png")
        assert clouded.shape == (32, 32, 3) and alpha.max() > 0
        clear = (alpha == 0) & (pixels(folder / f"shadow/{stem}.png") == 0)
        np.testing.assert_array_equal(clouded[clear], scene.optical[clear])
    assert (
        check_dataset("pie_cloud", root=tmp_path / "sets") == check_dataset("pie_clean", root=tmp_path / "sets") == []
    )
    assert read_manifest(root)["made_by"]["clouds"] == "own"


def test_clouds_of_the_download_are_taken(run, source):
    for stem, scene in SCENES.items():
        write_raster(source / f"rgb_clouds/{stem}.tif", scene.clouded, crs=None, transform=None)
    _, root, _ = run()
    assert not (root / "train/cloud").exists()
    np.testing.assert_array_equal(pixels(root / "train/optical_cloud/1.png"), SCENES["1"].clouded)
    assert read_manifest(root)["made_by"]["clouds"] == "of the download"


def test_a_download_in_split_folders_is_taken_as_split(run, source):
    for scene in SCENES.values():
        for role in ("rgb", "sar", "label"):
            target = source / scene.split / role
            target.mkdir(parents=True, exist_ok=True)
            shutil.move(source / role / f"{scene.number}.tif", target)
    for role in ("rgb", "sar", "label"):
        (source / role).rmdir()
    status, root, _ = run()
    assert status == 0 and sorted(path.stem for path in (root / "val/label").iterdir()) == ["3", "4"]


def test_coloured_labels_and_scenes_of_any_size(run, source):
    colors = np.array(get_vocabulary("pie", "released").colors, dtype=np.uint8)
    for split, stem in (("train", "1"), ("val", "3")):
        (source / f"{split}.txt").write_text(stem)
        label = np.tile(np.minimum(SCENES[stem].label, 5), (9, 10))
        for role, array in (("label", colors[label]), ("sar", label.astype(np.uint8)), ("rgb", colors[label])):
            write_raster(source / role / f"{stem}.tif", array, crs=None, transform=None)
    status, root, _ = run()
    assert status == 0  # 288 x 320 pixels make 2 x 2 tiles of 256
    assert sorted(path.stem for path in (root / "train/label").iterdir())[:2] == ["1_r00000_c00000", "1_r00000_c00064"]
    for path in (root / "train/label").iterdir():
        np.testing.assert_array_equal(colors[pixels(path)], pixels(path.parent.parent / "optical" / path.name))
        assert pixels(path).shape == (256, 256)


def test_a_split_is_not_made_up(run, source):
    (source / "val.txt").unlink()
    status, root, err = run()
    assert status == 2 and "no split list was found for: val" in err and "--random-split" in err and not root.exists()
    status, root, _ = run("--random-split", "--seed", "3")
    assert status == 0
    expected = split_stems(SCENES, seed=3)
    assert {split: sorted(path.stem for path in (root / split / "sar").iterdir()) for split in expected} == expected


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda root: shutil.rmtree(root / "sar"), (), "the sar rasters: no folder 'sar'"),
        (lambda root: (root / "sar/2.tif").unlink(), (), "rgb/2.tif' has no partner named '2.*'"),
        (lambda root: (root / "train.txt").write_text("1\n99\n"), (), "names '99', which the download does not have"),
        (lambda root: None, ("--cloudy-folder", "foggy"), "no folder 'foggy'"),
        (lambda root: None, ("--workers", "0"), "--workers must be at least 1, got 0"),
        (
            lambda root: write_raster(root / "label/1.tif", np.full((32, 32), 6, np.uint8)),
            (),
            "label/1.tif' has the value 6; known: 0, 1, 2, 3, 4, 5, 255",
        ),
        (
            lambda root: write_raster(root / "sar/1.tif", np.zeros((32, 30), np.uint8)),
            (),
            "tile '1' (train) differ in size",
        ),
    ],
)
def test_bad_downloads_are_explained(run, source, spoil, arguments, message):
    spoil(source)
    status, _, err = run(*arguments)
    assert status == 2 and message in err.splitlines()[-1]


def test_get_dataset_finds_it(run, tmp_path, monkeypatch):
    run()
    monkeypatch.setattr("mmovseg.data.datasets.catalog._chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    register_all()
    assert [item["image_id"] for item in get_dataset("pie_cloud_train")] == ["1", "2"]
    assert "optical_cloud" in get_dataset("pie_cloud_val")[0]["file_name"]
    assert "optical/" in get_dataset("pie_clean_val")[0]["file_name"]


@pytest.mark.slow  # three processes that import the package
def test_a_killed_process_continued_equals_an_unbroken_one(tmp_path):
    source = write_tree("pie_cloud", tmp_path / "source", layout="public", count=60, size=64)
    script = Path(prepare_pie.__file__)
    command = [sys.executable, "-W", "ignore", str(script), "--source", str(source), "--output"]
    environment = os.environ | {"PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, str(tmp_path / "broken")], env=environment, stderr=subprocess.DEVNULL) as process:
        while len(list((tmp_path / "broken").glob("pie/train/*/*.png"))) < 40:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.kill()
    written = len(list((tmp_path / "broken/pie").glob("*/label/*.png")))
    assert 0 < written < 120 and not (tmp_path / "broken/pie/manifest.json").exists()
    for root in ("broken", "unbroken"):
        done = subprocess.run(
            [*command, str(tmp_path / root)], env=environment, capture_output=True, text=True, check=True
        )
        assert ("0 were there" in done.stdout) == (root == "unbroken")
    contents = [
        {
            path.relative_to(tmp_path / root): path.read_bytes()
            for path in (tmp_path / root).rglob("*")
            if path.is_file()
        }
        for root in ("broken", "unbroken")
    ]
    assert contents[0] == contents[1] and len(contents[0]) == 120 * 6 + 2
