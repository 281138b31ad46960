"""Jobs: an interrupted run continued equals an unbroken one; workers; refusals; what files come out."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.datasets.manifest import read_manifest
from mmovseg.data.prepare import Layer, TileJob, add_clouds, prepare_dataset
from mmovseg.errors import UserError

FOLDERS = ("optical", "sar", "label", "optical_thick", "cloud_thick", "shadow_thick")
MADE_BY = {"script": "test", "seed": 0}


def make_tile(number: int, marker: str | None = None, size: int = 24) -> dict[str, Layer]:
    """Return made-up layers; leaves a trace of the call if asked to."""
    if marker is not None:
        Path(marker, f"{number}-{os.getpid()}").touch()
    rng = np.random.default_rng(number)
    optical = Layer(rng.integers(256, size=(size, size, 3), dtype=np.uint8))
    layers = {
        "optical": optical,
        "sar": Layer(rng.normal(size=(size, size, 2)).astype(np.float32), CRS.from_epsg(32631), Affine.scale(10, -10)),
        "label": Layer(rng.integers(5, size=(size, size), dtype=np.uint8)),
    }
    return layers | add_clouds(optical, CloudSynthesizer(kind="thick"), stem=str(number), kind="thick")


def make_or_die(number: int, dies_at: int) -> dict[str, Layer]:
    if number == dies_at:
        raise KeyboardInterrupt
    return make_tile(number)


def jobs(count, **options):
    return [
        TileJob("train" if n % 3 else "val", f"t{n}", FOLDERS, partial(make_tile, n, **options)) for n in range(count)
    ]


def run(tasks, root, **options):
    return prepare_dataset(tasks, root, **({"made_by": MADE_BY, "show_progress": False} | options))


def content(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_broken_run_continued_equals_an_unbroken_one(tmp_path):
    run(jobs(7), tmp_path / "unbroken")
    dying = [TileJob(job.split, job.stem, FOLDERS, partial(make_or_die, n, 4)) for n, job in enumerate(jobs(7))]
    with pytest.raises(KeyboardInterrupt):
        run(dying, tmp_path / "broken")
    broken = tmp_path / "broken"
    assert len(list(broken.glob("*/label/*"))) == 4 and not (broken / "manifest.json").exists()
    # what a kill in the middle of a tile, and in the middle of a file, leaves behind
    (broken / "train/shadow_thick/t1.png").unlink()
    (broken / "train/sar/.t4.tif.partial-123").write_bytes(b"half")
    (broken / ".unpacked/.set.zip.partial-123/rgb").mkdir(parents=True)
    marker = tmp_path / "made"
    marker.mkdir()
    counts = run(jobs(7, marker=str(marker)), broken)
    assert (counts.written, counts.finished_before) == (4, 3)
    assert sorted(path.name.split("-")[0] for path in marker.iterdir()) == ["1", "4", "5", "6"]
    assert content(broken) == content(tmp_path / "unbroken")
    assert len(content(broken)) == 7 * len(FOLDERS) + 2 and list((broken / ".unpacked").iterdir()) == []
    assert run(jobs(7), broken).written == 0 and content(broken) == content(tmp_path / "unbroken")


@pytest.mark.slow  # every worker imports the package
def test_workers_change_nothing(tmp_path):
    run(jobs(6), tmp_path / "one")
    marker = tmp_path / "made"
    marker.mkdir()
    tasks = [*jobs(6, marker=str(marker)), TileJob("val", "bad", ("a", "b"), make_uneven)]
    with pytest.raises(UserError, match="tile 'bad'.*differ in size"):
        run(tasks, tmp_path / "two", workers=2)
    made = {path.name.split("-")[1] for path in marker.iterdir()}
    assert made and str(os.getpid()) not in made
    run(jobs(6), tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def make_uneven() -> dict[str, Layer]:
    return {"a": Layer(np.zeros((4, 4), np.uint8)), "b": Layer(np.zeros((4, 5), np.uint8))}


def test_files_keep_type_place_and_facts(tmp_path):
    run(jobs(1), tmp_path)
    assert {path.name for path in tmp_path.glob("val/*/*")} == {"t0.png", "t0.tif"}
    expected = make_tile(0)
    with rasterio.open(tmp_path / "val/sar/t0.tif") as file:
        assert file.crs.to_epsg() == 32631 and file.transform == Affine.scale(10, -10)
        np.testing.assert_array_equal(file.read().transpose(1, 2, 0), expected["sar"].array)
    for folder in ("optical", "label", "optical_thick", "cloud_thick", "shadow_thick"):
        with rasterio.open(tmp_path / f"val/{folder}/t0.png") as file:
            wanted = expected[folder].array
            np.testing.assert_array_equal(file.read().transpose(1, 2, 0).reshape(wanted.shape), wanted)
    manifest = read_manifest(tmp_path)
    assert manifest["made_by"] == MADE_BY and list(manifest["files"]) == sorted(manifest["files"])
    assert manifest["files"]["val/label/t0.png"]["values"] == [0, 1, 2, 3, 4]
    facts = manifest["files"]["val/sar/t0.tif"]
    assert {key: facts[key] for key in ("height", "width", "bands", "dtype", "crs")} == {
        "height": 24,
        "width": 24,
        "bands": 2,
        "dtype": "float32",
        "crs": "EPSG:32631",
    }


def test_clouds_are_kept_with_their_masks():
    optical = Layer(np.full((48, 48, 3), 60, dtype=np.uint8))
    synthesizer = CloudSynthesizer(kind="thick", coverage=0.4)
    made = add_clouds(optical, synthesizer, stem="a", kind="thick", seed=3)
    again = add_clouds(optical, synthesizer, stem="a", kind="thick", seed=3)
    assert all(np.array_equal(made[key].array, again[key].array) for key in made)
    for other in ({"stem": "b"}, {"kind": "thin"}, {"seed": 4}):
        options = {"stem": "a", "kind": "thick", "seed": 3} | other
        cloud = next(layer for key, layer in add_clouds(optical, synthesizer, **options).items() if "cloud" in key[:5])
        assert not np.array_equal(cloud.array, made["cloud_thick"].array), other
    alpha, shadow = made["cloud_thick"].array, made["shadow_thick"].array
    assert abs((alpha > 127).mean() - 0.4) < 0.02 and shadow.max() > 50
    untouched = (alpha == 0) & (shadow == 0)
    assert untouched.any() and (made["optical_thick"].array[untouched] == 60).all()
    assert (made["optical_thick"].array[alpha > 250] > 180).all()


def test_a_folder_of_other_settings_is_refused(tmp_path):
    run(jobs(1), tmp_path)
    with pytest.raises(UserError, match=r"was begun with seed = 0, not 1; remove it"):
        run(jobs(1), tmp_path, made_by={"script": "test", "seed": 1})
    with pytest.raises(UserError, match="was begun with tile = None, not 8"):
        run(jobs(1), tmp_path, made_by=MADE_BY | {"tile": 8})
    (tmp_path / "prepare.json").write_text("{")
    with pytest.raises(UserError, match="prepare.json' is not valid JSON"):
        run(jobs(1), tmp_path)


def test_bad_jobs_are_explained(tmp_path):
    with pytest.raises(UserError, match="nothing to prepare"):
        run([], tmp_path)
    with pytest.raises(UserError, match="'t0' comes twice in val"):
        run(jobs(1) * 2, tmp_path)
    with pytest.raises(UserError, match="workers must be at least 1, got 0"):
        run(jobs(1), tmp_path, workers=0)
    with pytest.raises(UserError, match=r"tile 'x' \(val\) differ in size: a 4x4, b 4x5"):
        run([TileJob("val", "x", ("a", "b"), make_uneven)], tmp_path)
    with pytest.raises(ValueError, match="promised"):
        run([TileJob("val", "y", ("a",), make_uneven)], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(jobs(1), tmp_path / "file" / "root")


def test_the_same_facts_come_back_from_json(tmp_path):
    made_by = {"kinds": ("thin", "thick"), "holdout": None, "share": 0.1}
    run(jobs(1), tmp_path, made_by=made_by)
    assert run(jobs(1), tmp_path, made_by=made_by).finished_before == 1
    assert json.loads((tmp_path / "prepare.json").read_text())["kinds"] == ["thin", "thick"]
