import math

import pytest

from mmovseg.engine.schedule import WarmupSchedule
from mmovseg.errors import UserError


def factors(schedule, iterations, max_iter=100):
    return [schedule(iteration / max_iter) for iteration in iterations]


def test_cosine_with_warmup_at_known_iterations():
    schedule = WarmupSchedule(max_iter=100, decay="cosine", warmup_iters=10, warmup_factor=0.1)
    expected = [0.1, 0.55 * (1 + math.cos(0.05 * math.pi)) / 2, (1 + math.cos(0.1 * math.pi)) / 2, 0.5, 0.0]
    assert factors(schedule, [0, 5, 10, 50, 100]) == pytest.approx(expected)


def test_poly_and_constant():
    poly = WarmupSchedule(max_iter=100, decay="poly", power=0.9)
    assert factors(poly, [0, 50, 100]) == pytest.approx([1.0, 0.5**0.9, 0.0])
    assert factors(WarmupSchedule(max_iter=100, decay="constant"), [0, 99]) == [1.0, 1.0]


def test_end_factor_is_what_the_decay_ends_at():
    assert WarmupSchedule(max_iter=100, end_factor=0.1)(1.0) == pytest.approx(0.1)


def test_warmup_longer_than_the_training_never_ends():
    schedule = WarmupSchedule(max_iter=2, decay="constant", warmup_iters=4, warmup_factor=0.0)
    assert factors(schedule, [0, 1], max_iter=2) == [0.0, 0.25]


def test_unknown_values_are_refused():
    with pytest.raises(UserError, match="lr_multiplier.decay is 'step'"):
        WarmupSchedule(max_iter=1, decay="step")
    with pytest.raises(UserError, match="warmup_iters is -1"):
        WarmupSchedule(max_iter=1, warmup_iters=-1)


def test_multistep_falls_at_every_milestone():
    schedule = WarmupSchedule(max_iter=90, decay="multistep", milestones=[30, 60], warmup_iters=4, warmup_factor=0.2)
    expected = [0.2, 0.6, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    assert factors(schedule, [0, 2, 4, 29, 30, 59, 60, 89], max_iter=90) == pytest.approx(expected)


@pytest.mark.parametrize("max_iter", [7, 49, 90, 99, 1000])
def test_a_milestone_holds_from_its_very_iteration(max_iter):
    for step in range(1, max_iter):  # step / max_iter * max_iter is not always step
        schedule = WarmupSchedule(max_iter=max_iter, decay="multistep", milestones=[step], gamma=0.5)
        assert factors(schedule, [step - 1, step], max_iter=max_iter) == [1.0, 0.5]


def test_multistep_with_end_factor_and_gamma():
    schedule = WarmupSchedule(max_iter=4, decay="multistep", milestones=[1, 9], gamma=0.5, end_factor=0.2)
    assert factors(schedule, [0, 1, 4], max_iter=4) == pytest.approx([1.0, 0.6, 0.6])  # 9 is beyond the end


def test_decay_after_the_warmup_starts_at_one():
    schedule = WarmupSchedule(max_iter=110, warmup_iters=10, warmup_factor=0.0, decay_after_warmup=True, end_factor=0.1)
    expected = [0.0, 0.5, 1.0, 0.1 + 0.9 * 0.5, 0.1]
    assert factors(schedule, [0, 5, 10, 60, 110], max_iter=110) == pytest.approx(expected)


def test_milestones_are_checked():
    with pytest.raises(UserError, match=r"milestones is \[\] with decay 'multistep'"):
        WarmupSchedule(max_iter=1, decay="multistep")
    with pytest.raises(UserError, match=r"milestones is \[5\] with decay 'cosine'"):
        WarmupSchedule(max_iter=1, milestones=[5])
    for wrong in ([0, 5], [5, 5], [8, 5]):
        with pytest.raises(UserError, match="milestones must rise"):
            WarmupSchedule(max_iter=1, decay="multistep", milestones=wrong)
