"""Figures of classification, in percent, from counts or scores alone. Undefined is None, never NaN or 0."""

from __future__ import annotations

import numpy as np

from mmovseg.evaluation.metrics import mean_of

DEFINITION: dict[str, str] = {
    "OA": "overall accuracy: percent of the images whose highest score is that of their class",
    "AA": "average accuracy: mean over the classes that have images of the share of their images that are right",
    "F1": "mean over the classes that have images of 2 TP / (2 TP + FP + FN)",
    "micro AP": (
        "area under the precision-recall curve of all (image, class) pairs together, as the sum over thresholds of the "
        "gain in recall times the precision there; equal scores are one threshold"
    ),
    "macro AP": "mean over the classes that have images of the same area of one class",
    "last": "the figures without a further word are of the weights that were evaluated last",
    "best": (
        "the highest value among the periodic evaluations of the training, and the iteration that it was reached at. "
        "They look at the test images, so it is chosen on the test images and too high; it is what the release reports"
    ),
}


def accuracy_metrics(counts: np.ndarray) -> dict[str, float | None]:
    """Return OA, AA and F1.

    Args:
        counts: (K, K) int64, images by (true class, predicted class).
    """
    truth, predicted, hits = counts.sum(axis=1), counts.sum(axis=0), np.diagonal(counts)
    total = int(counts.sum())
    present = np.flatnonzero(truth)
    return {
        "OA": 100 * float(hits.sum()) / total if total else None,
        "AA": mean_of(100 * float(hits[i]) / float(truth[i]) for i in present),
        "F1": mean_of(200 * float(hits[i]) / float(truth[i] + predicted[i]) for i in present),
    }


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the area under one precision-recall curve in percent, None without a positive.

    Args:
        scores: (n,) float, higher is surer.
        truth: (n,) bool.
    """
    positives = int(truth.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last of each run of equal scores
    precision, recall = hits[ends] / (ends + 1), hits[ends] / positives
    return 100 * float(np.sum(np.diff(recall, prepend=0.0) * precision))


def precision_metrics(scores: np.ndarray, truth: np.ndarray) -> tuple[dict[str, float | None], list[float | None]]:
    """Return micro and macro average precision, and that of each class.

    Args:
        scores: (N, K) float.
        truth: (N, K) bool.
    """
    classes = [average_precision(scores[:, i], truth[:, i]) for i in range(truth.shape[1])]
    return {"micro AP": average_precision(scores.ravel(), truth.ravel()), "macro AP": mean_of(classes)}, classes
