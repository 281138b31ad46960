"""How much a figure hangs on which images are in the test set: bootstrap over whole images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.evaluation.metrics import HEADLINE, summary_metrics


def bootstrap_intervals(
    counts: Sequence[np.ndarray], vocabulary: Vocabulary, *, resamples: int = 500, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Return the percentile interval of every headline metric.

    Test sets of the same size are drawn with replacement from the images, whose confusion matrices are summed: the
    metrics stay what they are, over all pixels, and pixels of one image stay together. The interval says nothing of
    the spread between trainings.

    Args:
        counts: one (G, P) matrix for each image, rows truth, columns predicted. The order of the images belongs to the
            result.
        vocabulary: the label space, length G.
        resamples: test sets to draw.
        level: share of the draws inside the interval, 0..1.
        seed: of the draws. Equal seeds draw equal images, also for other models.

    Returns:
        (low, high) in percent; None for a metric that half of the draws or more leave undefined.

    Raises:
        ValueError: there is no image.
    """
    if not len(counts):
        raise ValueError("no image to draw from")
    matrices = np.stack(counts).astype(np.int64)
    size = len(matrices)
    picks = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
    sums = (picks @ matrices.reshape(size, -1)).reshape(resamples, *matrices.shape[1:])
    drawn = [summary_metrics(matrix, vocabulary) for matrix in sums]
    tail = 50 * (1 - level)
    intervals: dict[str, tuple[float, float] | None] = {}
    for name in HEADLINE:
        values = [value for metrics in drawn if (value := metrics[name]) is not None]
        low, high = np.percentile(values, (tail, 100 - tail)) if 2 * len(values) > resamples else (None, None)
        intervals[name] = None if low is None or high is None else (float(low), float(high))
    return intervals
