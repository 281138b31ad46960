"""Buildings of MiniEarth before and after a disaster."""

import numpy as np
import pytest

from mmovseg.data.miniearth import MiniEarthReader, render
from mmovseg.data.miniearth.damage import (
    DAMAGED,
    DESTROYED,
    INTACT,
    Disaster,
    MiniEarthDamageReader,
    load_miniearth_damage,
    render_damage,
)
from mmovseg.errors import UserError


@pytest.fixture(scope="module")
def pairs():
    reader = MiniEarthDamageReader()
    return [reader(item) for item in load_miniearth_damage("val", num_scenes=24)]


def place(number=0, size=96):
    world = load_miniearth_damage("train", num_scenes=4, size=size)[number]["world"]
    return world["row"], world["col"], size, size


def test_optical_is_before_and_what_was_not_hit_looks_the_same_to_the_radar():
    where = place()
    calm, after = render("default", *where), render_damage("default", *where)
    assert np.array_equal(calm.optical, after.optical) and np.array_equal(calm.label, after.label)
    same = (calm.sar == after.sar).all(axis=2)
    assert 0.1 < same.mean() < 1 and not same[after.damage >= DAMAGED].all()
    nothing = render_damage("default", *where, disaster=Disaster(damaged_share=0.0, destroyed_share=0.0))
    assert np.array_equal(calm.sar, nothing.sar) and set(np.unique(nothing.damage)) == {0, INTACT}


def test_a_window_equals_the_crop_of_a_larger_one():
    row, col, _, _ = place()
    large, small = render_damage("default", row, col, 90, 90), render_damage("default", row + 20, col + 30, 40, 50)
    assert np.array_equal(large.damage[20:60, 30:80], small.damage)
    assert np.array_equal(large.sar[20:60, 30:80], small.sar)


def test_a_building_has_one_state(pairs):
    row, col, _, _ = place()
    first = render_damage("default", row, col, 96, 96)
    other = render_damage("default", row, col, 96, 96, disaster=Disaster(seed=1))
    assert ((first.damage > 0) == (other.damage > 0)).all()
    assert (first.damage != other.damage).any()
    # states differ between buildings, never between neighbours of one roof: few changes along the rows
    edges = (first.damage[:, 1:] != first.damage[:, :-1]) & (first.damage[:, 1:] > 0) & (first.damage[:, :-1] > 0)
    assert edges.mean() < 0.01


def test_backscatter_of_the_states(pairs):
    sar, label = np.stack([pair.sar for pair in pairs]), np.stack([pair.sem_seg for pair in pairs])
    mean = {state: sar[label == state].mean(axis=0) for state in (INTACT, DAMAGED, DESTROYED)}
    assert mean[INTACT][0] > mean[DAMAGED][0] + 1.5  # walls no longer echo, in dB
    assert mean[INTACT][0] > mean[DESTROYED][0] + 1.5
    ratio = {state: mean[state][0] - mean[state][1] for state in mean}
    assert ratio[INTACT] > ratio[DESTROYED] + 1.5  # rubble is bright in cross polarisation
    spread = {state: sar[label == state][:, 0].std() for state in mean}
    assert spread[DESTROYED] < spread[INTACT] - 0.4  # no layover, no shadow


def test_shares_and_contents_of_the_list(pairs):
    label = np.stack([pair.sem_seg for pair in pairs])
    assert (label > 0).mean() > 0.12
    buildings = label[label > 0]
    assert 0.1 < (buildings == DAMAGED).mean() < 0.4 and 0.1 < (buildings == DESTROYED).mean() < 0.4
    pair = pairs[0]
    assert pair.optical.shape == (64, 64, 3) and pair.sar.shape == (64, 64, 2) and pair.optical.dtype == np.uint8


def test_the_list_is_the_same_for_any_length_and_splits_lie_apart():
    few, more = load_miniearth_damage("train", num_scenes=5), load_miniearth_damage("train", num_scenes=30)
    assert more[:5] == few
    rows = [item["world"]["row"] for item in more]
    assert min(item["world"]["row"] for item in load_miniearth_damage("val", num_scenes=30)) > max(rows)
    places = {(item["world"]["row"], item["world"]["col"]) for item in more}
    assert len(places) == 30


def test_what_the_caller_changes_is_not_kept():
    reader, item = MiniEarthDamageReader(), load_miniearth_damage("test", num_scenes=1)[0]
    first = reader(item)
    first.sar[:] = 0
    assert reader(item).sar.any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Disaster(damaged_share=0.4, destroyed_share=0.2), "0.4 and 0.2"),
        (lambda: load_miniearth_damage("dev"), "no split 'dev'"),
        (lambda: load_miniearth_damage("train", size=16), "size 16"),
        (lambda: load_miniearth_damage("train", num_scenes=0), "num_scenes is 0"),
        (lambda: MiniEarthDamageReader()({"file_name": "x", "height": 64, "width": 64}), "'x' is no scene of damage"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(UserError, match=words):
        call()


def test_the_ordinary_reader_does_not_take_it_for_its_own_label():
    item = load_miniearth_damage("test", num_scenes=1)[0]
    calm = MiniEarthReader(False)(item)
    assert np.array_equal(calm.optical, MiniEarthDamageReader()(item).optical)
    assert calm.sem_seg.max() > 3 or (calm.sem_seg == 4).any()
