"""Batches that are paired or unpaired throughout: counts, partners, ranks, epochs, and entering anywhere."""

from __future__ import annotations

import collections
import itertools

import pytest

from mmovseg.data.samplers import PureBatchSampler
from mmovseg.errors import UserError

SIZES = {"num_pairs": 7, "num_optical": 5, "num_sar": 9}


def sampler(**options):
    return PureBatchSampler(**({**SIZES, "batch_size": 3, "seed": 4} | options))


def take(batches, count):
    return list(itertools.islice(iter(batches), count))


def is_paired(batch):
    kinds = {isinstance(sample, int) for _, sample in batch}
    assert len(kinds) == 1
    return kinds.pop()


def samples(batches, paired):
    return [sample for batch in batches if is_paired(batch) == paired for _, sample in batch]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_batches_are_pure_and_every_rank_has_as_many(world_size):
    options = {"batch_size": 6, "world_size": world_size}
    shares = [take(sampler(**options, rank=rank), 40) for rank in range(world_size)]
    assert {len(batch) for share in shares for batch in share} == {6 // world_size}
    draws = [draw for share in shares for batch in share for draw, _ in batch]
    assert sorted(draws) == list(range(6 * 40)), "every draw comes once over all ranks"
    assert len({is_paired(batch) for share in shares for batch in share}) == 2


def test_ranks_may_hold_different_kinds_in_one_step():
    first, second = (take(sampler(batch_size=4, world_size=2, rank=rank), 30) for rank in (0, 1))
    assert {is_paired(left) == is_paired(right) for left, right in zip(first, second, strict=True)} == {True, False}


def test_an_epoch_has_as_many_batches_of_a_kind_as_its_samples_fill():
    batches = take(sampler(batch_size=2, num_pairs=20, num_optical=6, num_sar=6), 13 * 5)
    epochs = [[is_paired(batch) for batch in batches[first : first + 13]] for first in range(0, 65, 13)]
    assert all(sum(epoch) == 10 for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) > 1
    for counts in ({"num_optical": 4, "num_sar": 8}, {"num_optical": 8, "num_sar": 4}):  # the larger makes the epoch
        batches = take(sampler(batch_size=2, num_pairs=6, **counts), 7)
        assert [is_paired(batch) for batch in batches].count(False) == 4


def test_all_are_seen_once_before_any_is_seen_twice():
    batches = take(sampler(), 300)
    pairs, unpaired = samples(batches, True), samples(batches, False)
    for seen, first, size in ((pairs, 0, 7), ([o for o, _ in unpaired], 7, 5), ([s for _, s in unpaired], 12, 9)):
        for start in range(0, len(seen) - size + 1, size):
            assert sorted(seen[start : start + size]) == list(range(first, first + size))


def test_partners_are_drawn_anew():
    batches = take(sampler(num_optical=9), 300)
    partners = collections.defaultdict(set)
    for optical, sar in samples(batches, False):
        partners[optical].add(sar)
    assert all(len(found) > 6 for found in partners.values())


@pytest.mark.parametrize("start", [1, 17, 250])
@pytest.mark.parametrize("rank", [0, 1])
def test_entering_at_an_iteration_equals_going_there(start, rank):
    options = {"batch_size": 4, "world_size": 2, "rank": rank}
    whole = take(sampler(**options), start + 30)
    assert take(sampler(**options, start_iter=start), 30) == whole[start:]
    moved = sampler(**options)
    take(moved, 3)
    moved.start_iter = start
    assert take(moved, 30) == whole[start:], "the same object, set back or forth"


def test_another_seed_is_another_order():
    assert take(sampler(), 20) != take(sampler(seed=5), 20)


@pytest.mark.parametrize(("sizes", "kind"), [({"num_optical": 0, "num_sar": 0}, True), ({"num_pairs": 0}, False)])
def test_one_kind_alone(sizes, kind):
    assert {is_paired(batch) for batch in take(sampler(**sizes), 20)} == {kind}


def test_a_batch_larger_than_the_data_repeats_them():
    batches = take(sampler(batch_size=16), 10)
    assert {len(batch) for batch in batches} == {16}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3, "world_size": 2}, "batch size 3 cannot be shared equally by 2 processes"),
        ({"num_sar": 0}, "got 5 optical and 0 SAR ones"),
        ({"num_pairs": 0, "num_optical": 0, "num_sar": 0}, "the data set has neither"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        sampler(**options)
