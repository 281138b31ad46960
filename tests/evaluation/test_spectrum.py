import math

import pytest
import torch

from mmovseg.evaluation.alignment import AlignmentCounter
from mmovseg.evaluation.spectrum import Moments, effective_rank, rank_of_values, singular_values


def slow_rank(features):
    """From the singular values of the centred features themselves."""
    values = torch.linalg.svdvals((features - features.mean(dim=0)).double())
    shares = [float(value / values.sum()) for value in values if value > 0]
    return math.exp(-sum(share * math.log(share) for share in shares))


def test_singular_values_are_those_of_the_centred_features():
    x = torch.randn(50, 6) * torch.tensor([5.0, 3.0, 1.0, 1.0, 0.1, 0.01]) + 7
    expected = torch.linalg.svdvals((x - x.mean(dim=0)).double()).numpy()
    assert singular_values(Moments.of(x)) == pytest.approx(expected, rel=1e-5)
    assert effective_rank(Moments.of(x)) == pytest.approx(slow_rank(x), rel=1e-6)


def test_parts_add_up():
    x = torch.randn(40, 5)
    joined = Moments.of(x[:13]) + Moments.of(x[13:])
    assert effective_rank(joined) == pytest.approx(effective_rank(Moments.of(x)), rel=1e-12)


@pytest.mark.parametrize("directions", [1, 2, 4])
def test_the_rank_counts_the_directions_that_are_used_alike(directions):
    signs = torch.tensor([[1.0] * 8, [1, -1] * 4, [1, 1, -1, -1] * 2, [1] * 4 + [-1] * 4])
    base = torch.stack([signs[1], signs[2], signs[3], signs[1] * signs[2]], dim=1)[:, :directions]
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q[:directions]
    assert effective_rank(Moments.of(base @ rotation + 3)) == pytest.approx(directions, rel=1e-3)


def test_scale_and_shift_change_nothing_and_collapse_does():
    x = torch.randn(400, 16)
    whole = effective_rank(Moments.of(x))
    assert effective_rank(Moments.of(1000 * x - 40)) == pytest.approx(whole, rel=1e-6)
    collapsed = x.clone()
    collapsed[:, 1:] *= 0.05
    assert effective_rank(Moments.of(collapsed)) < whole / 2 < 16 / 2


def test_features_that_are_all_alike_have_no_rank():
    assert effective_rank(Moments.of(torch.full((20, 4), 3.7))) is None
    assert effective_rank(Moments.of(torch.randn(1, 4))) is None


def test_a_value_of_zero_takes_no_share():
    assert rank_of_values(torch.tensor([2.0, 2.0, 0.0]).numpy()) == pytest.approx(2)


def test_images_with_and_without_a_teacher_count_together():
    maps, valid = torch.randn(3, 5, 4, 4), torch.ones(4, 4, dtype=torch.bool)
    valid[0] = False
    parts = [AlignmentCounter(10), AlignmentCounter(10)]
    parts[0].update_alone(maps[0], valid)
    parts[1].update(maps[1], maps[2], valid, global_features=None)
    found = AlignmentCounter.joined(parts).metrics(("sar", "optical"))
    rows = torch.cat([maps[index].permute(1, 2, 0)[valid] for index in (0, 1)])
    assert found["effective rank"] == pytest.approx(slow_rank(rows), rel=1e-5)
    assert found["teacher effective rank"] == pytest.approx(slow_rank(maps[2].permute(1, 2, 0)[valid]), rel=1e-5)
