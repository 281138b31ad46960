"""Every segmentation metric, from one confusion matrix, in percent.

The definitions are fixed here and written into each result file, because libraries differ and have changed:
detectron2 0.6 counts a class that is predicted but absent from the ground truth as IoU 0, later versions leave it out.
Absent means None, never NaN or 0. `counts` is int64 (G, P) as in `ConfusionMatrix`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmovseg.data.vocabulary import Vocabulary

HEADLINE = ("mIoU", "mIoU-seen", "mIoU-unseen", "hIoU")

DEFINITION: dict[str, str] = {
    "matrix": "one confusion matrix over all counted pixels of the test set; per-image scores are never averaged",
    "IoU": "TP / (TP + FP + FN) of a class, in percent; null when the class has no pixel in the ground truth",
    "mIoU": "mean IoU over the classes present in the ground truth",
    "mIoU-union": "mean IoU over the classes present in the ground truth or predicted; only predicted counts as 0",
    "mIoU-seen": "mIoU over the classes whose labels training used",
    "mIoU-unseen": "mIoU over the classes whose labels training never used",
    "hIoU": "harmonic mean of mIoU-seen and mIoU-unseen; 0 when both are 0, null when one of them is undefined",
    "fwIoU": "IoU weighted by how frequent each class is in the ground truth",
    "pACC": "share of counted pixels that are right",
    "mACC": "mean over the classes present in the ground truth of the share of their pixels that are right",
    "ignore": "pixels labelled 255 are left out",
    "prediction": "argmax of the per-class scores at the size of the original raster",
}


def per_class_metrics(counts: np.ndarray) -> tuple[list[float | None], list[float | None]]:
    """Return (IoU, accuracy) of each of the G label classes in percent, None for classes without ground truth."""
    size = counts.shape[0]
    hits = np.diagonal(counts)[:size].astype(float)
    truth, predicted = counts.sum(axis=1), counts.sum(axis=0)[:size]
    ious = [100 * float(h / (t + p - h)) if t else None for h, t, p in zip(hits, truth, predicted, strict=True)]
    accuracies = [100 * float(h / t) if t else None for h, t in zip(hits, truth, strict=True)]
    return ious, accuracies


def summary_metrics(counts: np.ndarray, vocabulary: Vocabulary) -> dict[str, float | None]:
    """Return every headline metric of `DEFINITION` in percent.

    Args:
        counts: (G, P) int64.
        vocabulary: the label space, length G; gives the seen/unseen split.
    """
    if counts.shape[0] != len(vocabulary):
        raise ValueError(f"matrix has {counts.shape[0]} rows but the vocabulary has {len(vocabulary)} classes")
    ious, accuracies = per_class_metrics(counts)
    truth, predicted, total = counts.sum(axis=1), counts.sum(axis=0), int(counts.sum())
    in_truth = np.pad(truth > 0, (0, len(predicted) - len(truth)))
    predicted_only = int(np.count_nonzero(predicted[~in_truth]))
    seen = mean_of(ious[i] for i in vocabulary.seen_ids)
    unseen = mean_of(ious[i] for i in vocabulary.unseen_ids)
    present = [iou for iou in ious if iou is not None]
    weighted = sum(iou * int(pixels) for iou, pixels in zip(ious, truth, strict=True) if iou is not None)
    return {
        "mIoU": mean_of(ious),
        "mIoU-seen": seen,
        "mIoU-unseen": unseen,
        "hIoU": harmonic_mean(seen, unseen),
        "mIoU-union": sum(present) / (len(present) + predicted_only) if total else None,
        "fwIoU": weighted / total if total else None,
        "pACC": 100 * float(np.diagonal(counts).sum()) / total if total else None,
        "mACC": mean_of(accuracies),
    }


def permuted_metrics(
    counts: np.ndarray, vocabulary: Vocabulary, asked: Sequence[int] | None = None
) -> dict[str, float | None]:
    """Return the headline metrics for wrongly ordered names, the control for whether the text matters at all.

    The mean over all cyclic shifts of the names by 1 .. K-1 places (each metric is averaged over the shifts by itself).
    No new inference is run: for a model whose scores permute with the names it is asked with, which holds for a model
    without class list and without interaction between classes, asking for shifted names is shifting the columns.

    Args:
        counts: (G, P) int64.
        vocabulary: the label space, length G.
        asked: label classes that were asked for, the ones that are shifted; None means all.

    Returns:
        The four keys of `HEADLINE`; all None when fewer than two classes were asked for, or other names besides.
    """
    ids = list(range(len(vocabulary))) if asked is None else list(asked)
    if len(ids) < 2 or counts.shape[1] != counts.shape[0]:
        return dict.fromkeys(HEADLINE)
    results = []
    for shift in range(1, len(ids)):
        shifted = np.zeros_like(counts)
        shifted[:, ids] = counts[:, np.roll(ids, -shift)]
        results.append(summary_metrics(shifted, vocabulary))
    return {key: mean_of(result[key] for result in results) for key in HEADLINE}


def constant_baseline(counts: np.ndarray, vocabulary: Vocabulary) -> dict[str, dict[str, Any] | None]:
    """Return what the best constant map reaches: every pixel predicted as one class, the class chosen to flatter.

    Returns:
        For `mIoU` and `mIoU-unseen`: `{"value": percent, "class": name}`, or None where the metric is undefined.
    """
    truth, total = counts.sum(axis=1), int(counts.sum())
    best: dict[str, dict[str, Any] | None] = {}
    for key, ids in (("mIoU", list(range(len(vocabulary)))), ("mIoU-unseen", vocabulary.unseen_ids)):
        present = [i for i in ids if truth[i]]
        if not present:
            best[key] = None
            continue
        winner = max(present, key=lambda i: truth[i])
        best[key] = {"value": 100 * float(truth[winner]) / total / len(present), "class": vocabulary.names[winner]}
    return best


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None, or None when there is none."""
    known = [value for value in values if value is not None]
    return float(sum(known) / len(known)) if known else None


def harmonic_mean(first: float | None, second: float | None) -> float | None:
    """Return 2ab / (a + b), 0 when both are 0, None when one is None."""
    if first is None or second is None:
        return None
    return 2 * first * second / (first + second) if first + second else 0.0
