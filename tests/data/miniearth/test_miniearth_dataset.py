"""Splits, dataset dicts and the reader."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmovseg.data.miniearth import MiniEarthReader, load_miniearth, render
from mmovseg.data.miniearth.dataset import DEFAULT_COUNTS, SPLITS, windows_per_side
from mmovseg.data.sample import DatasetDict
from mmovseg.errors import UserError


def windows(split, **options):
    return {(item["world"]["row"], item["world"]["col"]) for item in load_miniearth(split, **options)}


def test_default_counts_and_keys():
    for split in SPLITS:
        items = load_miniearth(split)
        assert len(items) == DEFAULT_COUNTS[split]
        assert len({item["image_id"] for item in items}) == len(items)
    assert set(items[0]) <= set(DatasetDict.__annotations__)
    assert json.loads(json.dumps(items[0])) == items[0]
    assert items[17]["file_name"] == "miniearth/test/000017_optical"


@pytest.mark.parametrize("size, domain", [(32, "default"), (64, "default"), (100, "coarse"), (1024, "default")])
def test_windows_of_a_split_do_not_overlap(size, domain):
    places = windows("val", size=size, domain=domain, num_scenes=400)
    assert len(places) == 400
    rows, cols = zip(*places, strict=True)
    assert all((row - min(rows)) % size == 0 for row in rows) and all(col % size == 0 for col in cols)


def test_splits_are_far_apart_in_metres():
    reach = {}
    for split in SPLITS:
        for size, domain, gsd_m in ((64, "default", 2.5), (1024, "default", 2.5), (256, "coarse", 5.0)):
            for row, _ in windows(split, size=size, domain=domain, num_scenes=900):
                low, high = reach.get(split, (np.inf, -np.inf))
                reach[split] = (min(low, row * gsd_m), max(high, (row + size) * gsd_m))
    ordered = [reach[split] for split in SPLITS]
    for (_, high), (low, _) in zip(ordered, ordered[1:], strict=False):
        assert low - high > 100_000


def test_first_scenes_are_spread_over_the_area():
    rows, cols = zip(*windows("train", num_scenes=100), strict=True)
    side = windows_per_side(64, 2.5) * 64
    assert np.ptp(rows) > 0.9 * side and np.ptp(cols) > 0.9 * side


def test_fewer_scenes_are_a_prefix():
    assert load_miniearth("test", num_scenes=7) == load_miniearth("test")[:7]


def test_reader_gives_what_render_gives():
    item = load_miniearth("val", num_scenes=3, domain="tropical", seed=2)[2]
    sample = MiniEarthReader()(item)
    world = item["world"]
    scene = render("tropical", world["row"], world["col"], 64, 64, seed=2)
    assert np.array_equal(sample.optical, scene.optical)
    assert np.array_equal(sample.sar, scene.sar)
    assert np.array_equal(sample.sem_seg, scene.label)
    assert sample.optical_valid.all() and sample.sar_valid.all()
    assert sample.facts["targets"] == scene.targets
    assert sample.facts["sar_channels"] == ["VV", "VH"] and sample.facts["sar_unit"] == "dB sigma nought"
    assert len(sample.captions) >= 6


def test_cache_survives_changes_by_the_caller():
    item = load_miniearth("val", num_scenes=1)[0]
    reader = MiniEarthReader(cache=True)
    first = reader(item)
    kept = first.optical.copy()
    first.optical[:] = 0
    first.sar[:] = 0
    assert np.array_equal(reader(item).optical, kept)
    assert not np.array_equal(reader(item).sar, first.sar)


def test_cache_stops_at_its_size_and_serves_all_readers(monkeypatch):
    monkeypatch.setattr(MiniEarthReader, "_kept", {})
    monkeypatch.setattr(MiniEarthReader, "_bytes", 0)
    items = load_miniearth("val", num_scenes=4)
    reader = MiniEarthReader(cache_mb=0)
    assert np.array_equal(reader(items[0]).optical, reader(items[0]).optical)
    assert not MiniEarthReader._kept
    first = MiniEarthReader()(items[0])
    assert len(MiniEarthReader._kept) == 1
    again = MiniEarthReader()(items[0])
    assert len(MiniEarthReader._kept) == 1 and np.array_equal(again.sar, first.sar)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"split": "val", "size": 16}, "size 16"),
        ({"split": "val", "num_scenes": 0}, "num_scenes 0"),
        ({"split": "val", "size": 1024, "num_scenes": 10_000}, "num_scenes 10000"),
        ({"split": "val", "domain": "atlantis"}, "'atlantis'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        load_miniearth(**options)


def test_reader_refuses_other_data():
    with pytest.raises(UserError, match=r"'a\.tif' is no MiniEarth scene"):
        MiniEarthReader()({"file_name": "a.tif"})
