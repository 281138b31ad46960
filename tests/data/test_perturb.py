"""Disturbed SAR: nothing but SAR changes, and it changes as said."""

import numpy as np
import pytest

from mmovseg.data.io import FileReader
from mmovseg.data.miniearth import MiniEarthReader, load_miniearth
from mmovseg.data.perturb import SarOfAnother, ShiftedSar, shuffle_sar
from mmovseg.data.sample import RawSample
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_pairs

DICTS = [{"image_id": f"{i}", "file_name": f"o{i}", "sar_file_name": f"s{i}"} for i in range(9)]


def giver(shuffled):
    return [int(sample["sar_from"]["image_id"]) for sample in shuffled]


@pytest.mark.parametrize("count", [2, 3, 9])
def test_every_sample_gets_the_sar_of_another_one(count):
    for seed in range(20):
        order = giver(shuffle_sar(dataset=DICTS[:count], seed=seed))
        assert sorted(order) == list(range(count)), "a raster is used twice"
        assert all(own != other for own, other in enumerate(order)), "a sample kept its own"


def test_the_seed_decides_and_the_dicts_stay():
    shuffled = shuffle_sar(dataset=DICTS, seed=1)
    assert shuffled == shuffle_sar(dataset=DICTS, seed=1) and shuffled != shuffle_sar(dataset=DICTS, seed=2)
    assert [{key: sample[key] for key in DICTS[0]} for sample in shuffled] == DICTS
    assert all("sar_from" not in sample for sample in DICTS)


def test_what_cannot_be_shuffled_is_refused():
    with pytest.raises(UserError, match="the data set has 1"):
        shuffle_sar(dataset=DICTS[:1])
    with pytest.raises(UserError, match="sample 'x' has no SAR raster"):
        shuffle_sar(dataset=[*DICTS, {"image_id": "x", "file_name": "x"}])
    with pytest.raises(UserError, match="'0' does not say whose SAR"):
        SarOfAnother(reader=FileReader())(DICTS[0])


def same_but_sar(left, right):
    np.testing.assert_array_equal(left.optical, right.optical)
    np.testing.assert_array_equal(left.optical_valid, right.optical_valid)
    np.testing.assert_array_equal(left.sem_seg, right.sem_seg)


def test_files_keep_optical_and_label(tmp_path):
    pairs = write_pairs(tmp_path, count=3)
    reader = FileReader(**pairs.reader_options)
    for sample in shuffle_sar(dataset=pairs.dicts):
        shuffled = SarOfAnother(reader=reader)(sample)
        own, other = reader({k: v for k, v in sample.items() if k != "sar_from"}), reader(sample["sar_from"])
        same_but_sar(shuffled, own)
        np.testing.assert_array_equal(shuffled.sar, other.sar)
        np.testing.assert_array_equal(shuffled.sar_valid, other.sar_valid)
        assert not np.array_equal(np.nan_to_num(shuffled.sar), np.nan_to_num(own.sar))


def test_rendered_scenes_keep_optical_label_and_facts():
    reader = MiniEarthReader()
    (sample, _) = shuffle_sar(dataset=load_miniearth("test", num_scenes=2, size=32))
    shuffled, own, other = SarOfAnother(reader=reader)(sample), reader(sample), reader(sample["sar_from"])
    same_but_sar(shuffled, own)
    assert shuffled.captions == own.captions and shuffled.facts["shares"] == own.facts["shares"]
    np.testing.assert_array_equal(shuffled.sar, other.sar)


def test_sar_of_another_size_is_cut_and_filled_with_nothing():
    sizes = {"small": (3, 6), "large": (5, 4)}

    def reader(sample):
        size = sizes[sample["image_id"]]
        optical = np.zeros((*size, 3), np.uint8) if "file_name" in sample else None
        return RawSample(optical=optical, sar=np.full((*size, 1), 7, np.float32) if "sar_file_name" in sample else None)

    samples = [{"image_id": name, "file_name": name, "sar_file_name": name} for name in sizes]
    small, large = (SarOfAnother(reader=reader)(sample) for sample in shuffle_sar(dataset=samples))
    assert small.sar.shape == (3, 6, 1) and large.sar.shape == (5, 4, 1)
    assert small.sar_valid[:, :4].all() and not small.sar_valid[:, 4:].any()
    assert large.sar_valid[:3].all() and not large.sar_valid[3:].any()
    assert (small.sar[small.sar_valid] == 7).all() and (small.sar[~small.sar_valid] == 0).all()


def numbered(sample):
    sar = np.arange(12 * 10, dtype=np.float32).reshape(12, 10, 1) + 1
    valid = np.ones((12, 10), bool)
    valid[5, 5] = False
    return RawSample(np.ones((12, 10, 3), np.uint8), np.ones((12, 10), bool), sar, valid, np.zeros((12, 10), int))


@pytest.mark.parametrize("shift", [1, 3, 8])
def test_a_shift_moves_sar_only_and_marks_the_margin(shift):
    reader = ShiftedSar(reader=numbered, shift_px=shift)
    seen = set()
    for number in range(30):
        sample = {"image_id": f"scene {number}"}
        (down, right), own, moved = reader.direction(sample), numbered(sample), reader(sample)
        seen.add((down, right))
        same_but_sar(moved, own)
        for row in range(12):
            for column in range(10):
                source = row - down * shift, column - right * shift
                inside = 0 <= source[0] < 12 and 0 <= source[1] < 10
                assert moved.sar_valid[row, column] == (inside and own.sar_valid[source])
                assert moved.sar[row, column, 0] == (own.sar[(*source, 0)] if inside else 0)
    assert seen == {(0, 1), (1, 0), (0, -1), (-1, 0)}


def test_the_control_loses_the_same_margin_and_moves_nothing():
    sample = {"image_id": "a"}
    moved = ShiftedSar(reader=numbered, shift_px=3)(sample)
    control = ShiftedSar(reader=numbered, shift_px=3, only_margin=True)(sample)
    assert (moved.sar == 0).sum() == (control.sar == 0).sum() > 0
    np.testing.assert_array_equal(moved.sar == 0, control.sar == 0)
    kept = control.sar != 0
    np.testing.assert_array_equal(control.sar[kept], numbered(sample).sar[kept])


def test_no_shift_changes_nothing_and_impossible_ones_are_refused():
    sample = {"image_id": "a"}
    np.testing.assert_array_equal(ShiftedSar(reader=numbered, shift_px=0)(sample).sar, numbered(sample).sar)
    optical = ShiftedSar(reader=lambda _: RawSample(optical=np.ones((4, 4, 3))), shift_px=2)(sample)
    assert optical.sar is None
    with pytest.raises(UserError, match="'a' is 12x10 pixels and cannot be shifted by 10"):
        ShiftedSar(reader=numbered, shift_px=10)(sample)
    with pytest.raises(UserError, match="shift_px=-1"):
        ShiftedSar(reader=numbered, shift_px=-1)
