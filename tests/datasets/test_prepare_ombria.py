"""OMBRIA: every layout of the download prepared; the table of places; folds that keep neighbours together."""

import numpy as np
import prepare_ombria
import pytest
import rasterio

from mmovseg.data.datasets.check import check_dataset
from mmovseg.data.datasets.ombria import OmbriaReader, assign_folds, load_ombria
from mmovseg.data.datasets.ombria_facts import (
    PlaceFacts,
    cloud_mask,
    group_neighbours,
    measure_place,
    read_places,
)
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.realdata import realdata_root
from mmovseg.testing.trees_ombria import fake_place, write_tree


def pixels(path):
    with rasterio.open(path) as file:
        return file.read().transpose(1, 2, 0).squeeze()


@pytest.fixture
def prepared(tmp_path):
    write_tree(tmp_path / "source", layout="public", count=3)
    prepare_ombria.main(["--source", str(tmp_path / "source"), "--output", str(tmp_path / "sets")])
    return tmp_path / "sets/ombria"


def test_the_public_download_becomes_the_tree_that_was_meant(prepared, tmp_path):
    assert {path.name for path in prepared.iterdir()} == {
        *("train", "test", "test2021", "places.csv", "manifest.json", "prepare.json")
    }
    for split, stem, number in (("train", "0003", 3), ("test", "0004", 4), ("test2021", "albania_0090", 90)):
        place = fake_place(number)
        for role in ("optical_before", "optical", "sar_before", "sar"):
            np.testing.assert_array_equal(pixels(prepared / split / role / f"{stem}.png"), place[role])
        label = pixels(prepared / split / "label" / f"{stem}.png")
        outside = 2 if number % 3 == 0 else 0
        assert (label[:, :outside] == 255).all()
        np.testing.assert_array_equal(label[:, outside:], place["mask"][:, outside:] // 255)
    assert not [fault for fault in check_dataset("ombria", root=prepared.parent) if fault.kind != "expected_count"]


def test_a_plain_folder_gives_the_same_places_as_the_public_download(prepared, tmp_path):
    write_tree(tmp_path / "plain", layout="plain", count=3)
    prepare_ombria.main(["--source", str(tmp_path / "plain"), "--output", str(tmp_path / "again")])
    for role in ("optical_before", "sar", "label"):
        for stem in ("0001", "0003"):
            file = f"train/{role}/{stem}.png"
            np.testing.assert_array_equal(pixels(prepared / file), pixels(tmp_path / "again/ombria" / file))


def test_the_table_of_places_holds_what_the_pixels_say(prepared):
    row = read_places(prepared)["train", "0003"]
    place = fake_place(3)
    assert row.flood_fraction == pytest.approx((place["mask"][:, 2:] > 0).sum() / 32**2, abs=1e-4)
    assert row.nodata_fraction == 2 / 32
    assert row.cloud_after == pytest.approx((16 * 14) / 32**2, abs=1e-4) and row.cloud_before == 0
    assert row.is_cloudy and not read_places(prepared)["train", "0002"].is_cloudy


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "OmbriaS1/train/AFTER/S1_after_0002.png").unlink(), "place '0002' of train has no sar;"),
        (
            lambda root: write_raster(root / "OmbriaS1/train/MASK/S1_mask_0001.png", np.full((32, 32), 7, np.uint8)),
            "has the value 7; known: 0, 255",
        ),
        (
            lambda root: write_raster(root / "OmbriaS2/train/AFTER/S2_after_0001.png", np.zeros((32, 32), np.uint8)),
            "has 1 bands of uint8, expected 3",
        ),
    ],
)  # fmt: skip
def test_a_broken_download_is_told_in_one_sentence(tmp_path, capsys, change, sentence):
    root = write_tree(tmp_path / "source", layout="public", count=2)
    change(root)
    with pytest.raises(SystemExit) as stop:
        prepare_ombria.main(["--source", str(root), "--output", str(tmp_path / "sets")])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_another_folder_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        prepare_ombria.main(["--source", str(tmp_path), "--output", str(tmp_path / "sets")])
    assert "holds neither OmbriaS1 and OmbriaS2" in capsys.readouterr().err


def test_the_reader_stacks_dates_earlier_first(tmp_path):
    write_tree(tmp_path, count=3)
    item = next(item for item in load_ombria("train", root=tmp_path) if item["image_id"] == "0003")
    sample, place = OmbriaReader()(item), fake_place(3)
    np.testing.assert_array_equal(sample.optical[..., :3], place["optical_before"])
    np.testing.assert_array_equal(sample.optical[..., 3:], place["optical"])
    np.testing.assert_array_equal(sample.sar, np.stack([place["sar_before"], place["sar"]], axis=2).astype(np.float32))
    assert sample.sem_seg.max() == 255 and not sample.optical_valid[:, :2].any() and sample.sar_valid[:, 2:].all()
    np.testing.assert_array_equal(sample.facts["cloud_alpha"] > 0.5, cloud_mask(place["optical"]))
    masked = OmbriaReader(mask_clouds=True)(item)
    np.testing.assert_array_equal(masked.optical_valid, sample.optical_valid & ~cloud_mask(place["optical"]))
    np.testing.assert_array_equal(masked.sar_valid, sample.sar_valid)  # radar sees through
    later = next(item for item in load_ombria("train", root=tmp_path, dates="after") if item["image_id"] == "0003")
    assert OmbriaReader()(later).optical.shape == (32, 32, 3) and OmbriaReader()(later).sar.shape == (32, 32, 1)


def test_windows_cover_a_place_and_absent_modalities_stay_absent(tmp_path):
    write_tree(tmp_path, count=1)
    whole, parts = load_ombria("train", root=tmp_path)[0], load_ombria("train", root=tmp_path, window=16)
    reader = OmbriaReader()
    rows = [np.concatenate([reader(part).optical for part in parts[i : i + 2]], axis=1) for i in (0, 2)]
    np.testing.assert_array_equal(np.concatenate(rows, axis=0), reader(whole).optical)
    assert len({part["image_id"] for part in parts}) == 4
    without = {key: value for key, value in whole.items() if key != "file_name"}
    assert reader(without).optical is None and reader(without).sar.shape == (32, 32, 2)


def test_folds_part_the_places_and_keep_neighbours_together():
    rng = np.random.default_rng(0)
    rows = [
        PlaceFacts("train", f"{i:04d}", float(rng.random()), 0.0, 0.5 * (i % 4 == 0), 0.0, f"{3 * (i // 3):04d}")
        for i in range(60)
    ]
    folds = assign_folds(rows, 5)
    assert folds == assign_folds(rows[::-1], 5) and set(folds.values()) == set(range(5))
    for row in rows:
        assert folds[row.place] == folds[row.group]
    sizes = [sum(fold == k for fold in folds.values()) for k in range(5)]
    cloudy = [sum(folds[row.place] == k for row in rows if row.is_cloudy) for k in range(5)]
    flooded = [sum(row.flood_fraction for row in rows if folds[row.place] == k) for k in range(5)]
    assert sum(sizes) == 60 and min(sizes) >= 9 and min(cloudy) >= 2
    assert max(flooded) < 1.3 * min(flooded)


def test_train_and_val_of_a_fold_share_no_place(tmp_path):
    write_tree(tmp_path, count=6)
    names = {
        split: [{item["image_id"] for item in load_ombria(split, root=tmp_path, fold=k, num_folds=3)} for k in range(3)]
        for split in ("train", "val")
    }
    for train, val in zip(names["train"], names["val"], strict=True):
        assert not train & val and len(train | val) == 6
    assert set.union(*names["val"]) == {f"{i:04d}" for i in range(1, 7)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "val"}, "give fold=0"),
        ({"split": "train", "fold": 5}, "fold 5 of 5 does not exist"),
        ({"split": "test", "fold": 0}, "does not exist for split 'test'"),
        ({"split": "tset"}, "no split 'tset'"),
        ({"split": "train", "dates": "never"}, "no dates 'never'"),
        ({"split": "train", "window": 20}, "a window of 20 pixels does not divide"),
        ({"split": "train", "fold": 0, "num_folds": 9}, "cannot make 9 folds"),
    ],
)
def test_wrong_options_are_told(tmp_path, options, sentence):
    write_tree(tmp_path, count=2)
    with pytest.raises(UserError, match=sentence):
        load_ombria(**options, root=tmp_path)


def test_places_cut_from_one_scene_are_found_to_be_neighbours(tmp_path):
    first, second = smooth_noise(1, 192), smooth_noise(2, 192)
    write_place(tmp_path, "1", first[:96, :96])
    write_place(tmp_path, "2", first[:96, 96:])  # right of 1
    write_place(tmp_path, "3", first[96:, 96:])  # below 2
    write_place(tmp_path, "4", second[:96, :96])
    border = np.zeros((96, 96, 3), np.uint8)
    border[:, 48:] = 90
    write_place(tmp_path, "5", border)
    write_place(tmp_path, "6", border[:, ::-1])  # black edges to black edges: outside the scene, no evidence
    groups = group_neighbours(tmp_path, ["1", "2", "3", "4", "5", "6"])
    assert groups == {"1": "1", "2": "1", "3": "1", "4": "4", "5": "5", "6": "6"}


def smooth_noise(seed, size):
    """Land-like noise: a moving mean over 16 pixels both ways."""
    rough = np.random.default_rng(seed).normal(size=(size + 16, size + 16, 3))
    for axis in (0, 1):
        sums = np.cumsum(rough, axis=axis)
        rough = np.take(sums, range(16, size + 16), axis=axis) - np.take(sums, range(size), axis=axis)
    return np.clip(128 + 45 * rough / rough.std(), 1, 254).astype(np.uint8)


def write_place(folder, name, image):
    for role in ("optical_before", "optical"):
        write_raster(folder / role / f"{name}.png", image)
    for role in ("sar_before", "sar"):
        write_raster(folder / role / f"{name}.png", image[..., 0])
    write_raster(folder / "label" / f"{name}.png", np.zeros(image.shape[:2], np.uint8))


@pytest.mark.realdata
@pytest.mark.skipif(
    realdata_root() is None or not (realdata_root() / "ombria").is_dir(), reason="no real OMBRIA samples here"
)
def test_clouds_and_floods_agree_with_the_facts_that_come_with_the_samples(tmp_path):
    source = realdata_root() / "ombria"
    rows = [line.split(",") for line in (source / "manifest.csv").read_text().splitlines()[1:]]
    found = prepare_ombria.list_places([source])["train"]
    assert len(found) == 160
    errors = []
    for _, place, flood, before, after, *_ in rows[::6]:
        for role, layer in prepare_ombria.make_tile(found[place]).items():
            write_raster(tmp_path / role / f"{place}.png", layer.array)
        facts = measure_place(tmp_path, "train", place)
        assert facts.flood_fraction == pytest.approx(float(flood), abs=0.002)
        errors += [abs(facts.cloud_after - float(after)), abs(facts.cloud_before - float(before))]
    assert np.mean(errors) < 0.02
