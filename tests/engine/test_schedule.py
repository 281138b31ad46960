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
