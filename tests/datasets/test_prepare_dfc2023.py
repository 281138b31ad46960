"""DFC2023: both tracks prepared, loaded; drawing; the split by city; bad input."""

import json
import re
import shutil
import zipfile

import numpy as np
import prepare_dfc2023
import pytest
import rasterio

from mmovseg.data.datasets import catalog, get_dataset
from mmovseg.data.datasets.check import check_dataset
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.trees_dfc2023 import TRAIN_CITIES, VAL_CITIES, write_tree


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    root = write_tree(tmp_path_factory.mktemp("download"), layout="public", count=4)
    return write_tree(root, layout="public", count=4, name="dfc2023_building")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the script into tmp_path/sets, also the root of `get_dataset`; returns (exit status, stdout, stderr)."""
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))

    def run_it(source, *options):
        status = 0
        try:
            prepare_dfc2023.main(["--source", str(source), "--output", str(tmp_path / "sets"), *map(str, options)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    run_it.root = tmp_path / "sets"
    return run_it


@pytest.mark.parametrize(("name", "labels"), [("dfc2023", "roof"), ("dfc2023_building", "building")])
def test_a_track_becomes_the_prepared_tree(download, run, tmp_path, name, labels):
    status, out, _ = run(download, "--labels", labels)
    assert status == 0 and "8 tiles written, 0 were there (train 4, val 4: Dakar; 1 without a city)" in out
    expected = write_tree(tmp_path / "expected", layout="own", count=4, name=name)
    paths = sorted(expected.rglob("*.tif"))
    assert len(paths) == 24
    for path in paths:
        made_path = run.root / path.relative_to(expected)
        with rasterio.open(path) as wanted, rasterio.open(made_path) as made:
            np.testing.assert_allclose(made.read(), wanted.read(), rtol=0, atol=1e-4, err_msg=path.name)
            assert made.crs == wanted.crs and made.transform == wanted.transform, path.name
    assert len({path.stem for path in (run.root).rglob("label/*.tif")}) == 8
    assert [fault.kind for fault in check_dataset(name, root=run.root)] == []
    assert [fault.kind for fault in check_dataset(name, root=expected)] == []


def test_an_archive_with_both_tracks_gives_each_its_own(download, run, tmp_path):
    with zipfile.ZipFile(tmp_path / "DFC23_IEEE-DataPort.zip", "w") as archive:
        for path in sorted(download.rglob("*.*")):
            archive.write(path, f"DFC23_IEEE-DataPort/{path.relative_to(download)}")
    for kind, values in (("roof", set(range(13))), ("building", {0, 1})):
        assert run(tmp_path / "DFC23_IEEE-DataPort.zip", "--labels", kind)[0] == 0
        name = "dfc2023" if kind == "roof" else "dfc2023_building"
        found = set()
        for path in (run.root / name).glob("*/label/*.tif"):
            with rasterio.open(path) as file:
                found |= set(np.unique(file.read()).tolist())
        assert found == values


def test_buildings_of_track_1(download, run):
    assert run(download / "track1", "--labels", "building")[0] == 0
    assert len(get_dataset("dfc2023_building_val")) == 4


@pytest.mark.parametrize("name", ["dfc2023", "dfc2023_building"])
def test_it_loads_through_the_mapper(download, run, name):
    assert run(download, "--labels", "roof" if name == "dfc2023" else "building")[0] == 0
    dicts = get_dataset(f"{name}_train")
    assert {item["image_id"].split("_")[1] for item in dicts} == set(TRAIN_CITIES)
    assert {item["image_id"].split("_")[1] for item in get_dataset(f"{name}_val")} == set(VAL_CITIES)
    vocabulary = get_vocabulary(name)
    mapper = OpticalSARMapper(is_train=True, vocabulary=vocabulary, reader=FileReader(sar_unit_in="db"))
    items = [mapper(item) for item in dicts]
    unseen = {index for item in items for index in item["sem_seg"].unique().tolist()} - {255}
    assert unseen <= set(range(len(vocabulary.seen_ids))) and 0 in unseen
    assert items[0]["sar"].shape == (1, 48, 48) and not items[0]["sar_valid"][0, 0] and items[0]["sar_valid"][1:].all()


def test_an_interrupted_run_is_continued_and_ends_alike(download, run):
    assert run(download)[0] == 0
    whole = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    for path in sorted(run.root.rglob("*.tif"))[::4]:
        path.unlink()
    status, out, _ = run(download)
    assert status == 0 and "0 tiles written" not in out
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == whole
    status, _, err = run(download, "--sar-quantity", "power")
    assert status == 2 and "was begun with sar_quantity = 'amplitude', not 'power'" in err


def test_sar_quantities():
    stored = np.array([[0.1, 10.0, 0.0, -1.0, np.nan]], dtype=np.float32)
    expected = {"amplitude": [-20, 20], "power": [-10, 10], "db": [0.1, 10]}
    for quantity, values in expected.items():
        made = prepare_dfc2023.sar_to_db(stored, quantity)
        np.testing.assert_allclose(made[0, :2], values, atol=1e-5)
        assert np.isnan(made[0, 2:]).tolist() == ([False, False, True] if quantity == "db" else [True] * 3)


def test_drawing_follows_the_outline_in_every_encoding():
    square = [[2, 1, 6, 1, 6, 4, 2, 4]]  # x, y: columns 2..5, rows 1..3
    expected = np.zeros((8, 8), np.uint8)
    expected[1:4, 2:6] = 7
    runs = {"size": [8, 8], "counts": [17, 3, 5, 3, 5, 3, 5, 3, 20]}  # column by column
    for segmentation in (square, runs, [[0, 0, 1, 1], *square]):
        outline = prepare_dfc2023.Outline(7, 12, segmentation)
        drawn = prepare_dfc2023.draw_outlines([outline], (8, 8), source="x")
        np.testing.assert_array_equal(drawn, expected)
    assert not prepare_dfc2023.draw_outlines([prepare_dfc2023.Outline(7, 0, [])], (8, 8), source="x").any()
    over = prepare_dfc2023.Outline(3, 1, [[2, 1, 3, 1, 3, 2, 2, 2]])
    drawn = prepare_dfc2023.draw_outlines([over, prepare_dfc2023.Outline(7, 12, square)], (8, 8), source="x")
    expected[1, 2] = 3
    np.testing.assert_array_equal(drawn, expected)


def test_cities_are_held_out_whole():
    stems = [f"SV_{city}_1.{index}_2.0" for city in "HGFEDCBA" for index in range(3)] + ["P_0001"]
    splits = prepare_dfc2023.split_by_city(stems)
    assert {stem[3] for stem in splits["val"]} == {"D", "H"} and len(splits["val"]) == 6
    assert {stem[3] for stem in splits["train"]} == set("ABCEFG") and "P_0001" not in splits["train"]
    named = prepare_dfc2023.split_by_city(stems, ["A", "B"])
    assert {stem[3] for stem in named["val"]} == {"A", "B"}
    assert prepare_dfc2023.split_by_city(reversed(stems)) == splits
    with pytest.raises(UserError, match="--val-cities names 'Z'; the download has: A, B"):
        prepare_dfc2023.split_by_city(stems, ["A", "Z"])
    with pytest.raises(UserError, match=r"train is empty: the download has the cities A$"):
        prepare_dfc2023.split_by_city(["SV_A_1_2"])
    with pytest.raises(UserError, match=r"cities \(none\)"):
        prepare_dfc2023.split_by_city(["P_0001"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda track: (track / "roof_fine_train.json").unlink(), "name the file with --annotations"),
        (lambda track: (track / "roof_fine_train.json").write_text("{"), "are not valid JSON"),
        (lambda track: edit(track, lambda coco: coco.pop("images")), "not in the COCO format: KeyError"),
        (lambda track: edit(track, lambda coco: coco["images"].append(coco["images"][0])), "list an image twice"),
        (lambda track: edit(track, rename_category("thatched")), "unknown category 'thatched'$"),
        (lambda track: edit(track, rename_category("building")), "prepare it with --labels building"),
        (
            lambda track: edit(track, lambda coco: coco["categories"].pop()),
            "use the category 12, which they do not list",
        ),
        (
            lambda track: edit(track, set_segmentation({"size": [9, 9], "counts": [81]})),
            "for 9x9 pixels, the image has 48x48",
        ),
        (lambda track: edit(track, set_segmentation({"size": [48, 48]})), "cannot be drawn"),
        (lambda track: sorted((track / "train/sar").iterdir())[0].unlink(), "which has no SAR file"),
        (lambda track: shutil.rmtree(track / "train/rgb"), "the optical images: no folder"),
        (lambda track: overwrite(track, "sar", (48, 48, 2)), "has 2 bands; one was expected"),
        (lambda track: overwrite(track, "rgb", (20, 20, 3)), "differ in size|the image has 20x20"),
    ],
)
def test_bad_downloads_are_named(download, run, tmp_path, spoil, message):
    track = shutil.copytree(download / "track1", tmp_path / "track1")
    spoil(track)
    status, _, err = run(track)
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and re.search(message, sentence), sentence


def edit(track, change):
    path = track / "roof_fine_train.json"
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


def rename_category(name):
    return lambda coco: coco["categories"][0].update(name=name)


def set_segmentation(value):
    return lambda coco: coco["annotations"][0].update(segmentation=value)


def overwrite(track, folder, shape):
    path = next(path for path in sorted((track / "train" / folder).iterdir()) if path.name.startswith("SV"))
    write_raster(path, np.full(shape, 9, np.uint8))
