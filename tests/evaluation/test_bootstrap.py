"""The bootstrap over images: it narrows with their number, covers the truth, and draws alike for every model."""

import numpy as np
import pytest

from mmovseg.evaluation.bootstrap import bootstrap_intervals
from mmovseg.evaluation.metrics import summary_metrics
from mmovseg.testing.checks import tiny_vocabulary

VOCABULARY = tiny_vocabulary(2, 1)


def images(count, seed=0):
    """Confusion matrices of images whose accuracy varies around 70 %."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        right = rng.uniform(0.5, 0.9)
        chances = np.full((3, 3), (1 - right) / 2) + np.eye(3) * (right - (1 - right) / 2)
        made.append(np.stack([rng.multinomial(rng.integers(10, 400), row) for row in chances]))
    return made


def test_equal_images_leave_no_doubt():
    one = images(1)[0]
    for low, high in bootstrap_intervals([one] * 5, VOCABULARY, resamples=50).values():
        assert low == pytest.approx(high)
    assert bootstrap_intervals([one] * 5, VOCABULARY)["mIoU"][0] == pytest.approx(
        summary_metrics(one, VOCABULARY)["mIoU"]
    )


def test_the_interval_holds_the_value_and_narrows_with_images():
    widths = []
    for count in (20, 320):
        counts = images(count)
        for name, (low, high) in bootstrap_intervals(counts, VOCABULARY).items():
            assert low < summary_metrics(sum(counts), VOCABULARY)[name] < high
        widths.append(high - low)
    assert 2.5 < widths[0] / widths[1] < 6.5, "the width goes with the root of the number of images"


def test_the_interval_covers_what_other_images_give():
    """Of 40 fresh test sets, about 95 % of the intervals hold the value of a very large one."""
    truth = summary_metrics(sum(images(3000, seed=99)), VOCABULARY)["mIoU"]
    hits = 0
    for seed in range(40):
        low, high = bootstrap_intervals(images(40, seed), VOCABULARY, resamples=100)["mIoU"]
        hits += low <= truth <= high
    assert hits >= 33


def test_seed_decides_and_draws_alike_for_every_model():
    counts = images(12)
    assert bootstrap_intervals(counts, VOCABULARY) == bootstrap_intervals(counts, VOCABULARY)
    assert bootstrap_intervals(counts, VOCABULARY, seed=1) != bootstrap_intervals(counts, VOCABULARY)
    doubled = bootstrap_intervals([2 * matrix for matrix in counts], VOCABULARY)
    assert doubled["mIoU"] == pytest.approx(bootstrap_intervals(counts, VOCABULARY)["mIoU"])


def test_what_most_draws_cannot_know_has_no_interval():
    counts = images(8)
    for matrix in counts:
        matrix[2] = 0
    intervals = bootstrap_intervals(counts, VOCABULARY)
    assert intervals["mIoU-unseen"] is None and intervals["mIoU-seen"] is not None
    with pytest.raises(ValueError, match="no image"):
        bootstrap_intervals([], VOCABULARY)
