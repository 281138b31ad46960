"""Windows of MiniEarth around targets: what they show, where they lie, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mmovseg.data.miniearth import MiniEarthReader, load_miniearth, render
from mmovseg.data.miniearth.chips import load_miniearth_targets
from mmovseg.data.miniearth.regions import TARGET_CATEGORIES
from mmovseg.errors import UserError


@pytest.fixture(scope="module")
def chips():
    return {sensor: load_miniearth_targets("train", sensor=sensor, num=12) for sensor in ("optical", "sar", "both")}


def place(item):
    return np.array([item["world"]["row"], item["world"]["col"]])


def test_a_chip_shows_its_target_whole_and_others_farther_off(chips):
    for item in chips["optical"]:
        targets = MiniEarthReader(False)(item).facts["targets"]
        category = TARGET_CATEGORIES[item["label"]]
        assert category in item["image_id"]
        centres = {name: [] for name in TARGET_CATEGORIES}
        for target in targets:
            x0, y0, x1, y1 = target["box"]
            centres[target["category"]].append(max(abs((x0 + x1) / 2 - 32), abs((y0 + y1) / 2 - 32)))
        others = [off for name, offs in centres.items() if name != category for off in offs]
        assert min(centres[category]) < 15 and all(off > min(centres[category]) for off in others)


def test_the_target_is_not_always_in_the_middle(chips):
    offsets = []
    for item in chips["optical"] + chips["both"]:
        boxes = [t["box"] for t in MiniEarthReader(False)(item).facts["targets"] if t["category"] in item["image_id"]]
        centres = np.array([[(y0 + y1) / 2 - 32, (x0 + x1) / 2 - 32] for x0, y0, x1, y1 in boxes])
        offsets.append(centres[np.abs(centres).max(axis=1).argmin()])
    assert np.std(offsets) > 3 and abs(np.mean(offsets)) < 4


def test_sensors_and_splits_show_different_ground(chips):
    for one, other in (("optical", "sar"), ("optical", "both"), ("sar", "both")):
        gaps = [np.abs(place(a) - place(b)).max() for a in chips[one] for b in chips[other]]
        assert min(gaps) >= 64
    own = [np.abs(place(a) - place(b)).max() for i, a in enumerate(chips["sar"]) for b in chips["sar"][:i]]
    assert min(own) >= 64, "nor do the chips of one call overlap"
    val = load_miniearth_targets("val", sensor="optical", num=3)
    rows = {
        split: [place(item)[0] * 2.5 for item in load_miniearth(split, num_scenes=50)] for split in ("train", "val")
    }
    assert all(min(rows["val"]) - 2_000 < place(item)[0] * 2.5 < 600_000 for item in val)
    assert all(place(item)[0] * 2.5 < 200_000 for items in chips.values() for item in items)


def test_a_dict_names_the_rasters_of_its_sensor(chips):
    keys = {sensor: {"file_name", "sar_file_name"} & set(items[0]) for sensor, items in chips.items()}
    assert keys == {"optical": {"file_name"}, "sar": {"sar_file_name"}, "both": {"file_name", "sar_file_name"}}
    item = load_miniearth_targets("train", sensor="both", num=1, source="chips")[0]
    assert item["source"] == "chips"
    scene = render("default", *place(item), 64, 64)
    raw = MiniEarthReader(False)(item)
    np.testing.assert_array_equal(raw.optical, scene.optical)
    np.testing.assert_array_equal(raw.sar, scene.sar)


def test_the_first_are_balanced_and_the_same_whatever_the_number(chips):
    assert [item["label"] for item in chips["sar"]] == [0, 1, 2] * 4
    assert load_miniearth_targets("train", sensor="sar", num=5) == chips["sar"][:5]


def test_categories_choose_and_number_the_labels(chips):
    ships = load_miniearth_targets("train", sensor="sar", num=4, categories=["ship"])
    assert [item["label"] for item in ships] == [0] * 4
    assert [tuple(place(item)) for item in ships] == [tuple(place(item)) for item in chips["sar"] if item["label"] == 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"sensor": "lidar"}, "no chips of sensor 'lidar'; known: optical, sar, both"),
        ({"size": 16}, "32 .. 256 pixels wide, got size 16"),
        ({"jitter": 1.5}, "is 0 .. 1, got 1.5"),
        ({"num": 0}, "num of at least 1, got 0"),
        ({"categories": ["ship", "tank"]}, "a choice of aircraft, ship, vehicle, got ship, tank"),
        ({"categories": []}, "a choice of aircraft, ship, vehicle, got $"),
        (
            {"domain": {"gsd_m": 20.0}, "categories": ["vehicle"]},
            "shows only 0 of the 1500 chips with vehicle .*20.0 m",
        ),
    ],
)
def test_what_cannot_be_found_is_refused(options, message, monkeypatch):
    monkeypatch.setattr("mmovseg.data.miniearth.chips._IDLE_BLOCKS", 1)
    with pytest.raises(UserError, match=message):
        load_miniearth_targets(**({"split": "train"} | options))
