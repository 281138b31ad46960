"""How far made labels can be trusted: agreement of several models, confidence, and where there is truth, how right.

Figures of an image are counts, kept in its record; those of a set are made of the records alone, so that a run in
pieces gives the figures of an unbroken one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.evaluation.confusion import ConfusionMatrix
from mmovseg.evaluation.metrics import per_class_metrics, summary_metrics

BINS = 10  # of confidence, of equal width

DEFINITION = {
    "mean agreement": "share of the valid pixels of an image to which all models give the same class, mean over images "
    "(Sec. 7 of the paper, there over all pixels)",
    "pairwise agreement": "the same of every two models",
    "mean confidence": "mean probability of the given class over valid pixels",
    "labelled": "share of the valid pixels that have a label, the others being 255",
    "valid": "pixels where both rasters of the pair hold data",
    "quality": "only where true labels are at hand; they are compared with and never written into labels",
    "right where all agree": "share of right pixels among those to which all models give the same class",
}


def image_figures(
    maps: Sequence[np.ndarray],
    given: np.ndarray,
    written: np.ndarray,
    confidence: np.ndarray,
    valid: np.ndarray,
    truth: np.ndarray | None,
    *,
    num_classes: int,
) -> dict[str, Any]:
    """Return the counts of one image, json-able.

    Args:
        maps: (H, W) classes by each model that was asked; one map alone has no agreement.
        given: (H, W) classes before anything was left out.
        written: (H, W) labels, 255 = left out.
        confidence: (H, W) in 0..1.
        valid: (H, W) bool.
        truth: (H, W) true classes, 255 = unknown, or None.
        num_classes: K.
    """
    figures: dict[str, Any] = {
        "valid": int(valid.sum()),
        "labelled": int((written != IGNORE_LABEL).sum()),
        "classes": np.bincount(written[written != IGNORE_LABEL], minlength=num_classes).tolist(),
        "confidence": round(float(confidence[valid].sum(dtype=np.float64)), 3),
    }
    agreed = np.ones(valid.shape, dtype=bool)
    if len(maps) > 1:
        agreed = np.logical_and.reduce([one == maps[0] for one in maps[1:]])
        figures["agreed"] = int((agreed & valid).sum())
        figures["pairs"] = [int(((a == b) & valid).sum()) for a, b in combinations(maps, 2)]
    if truth is not None:
        figures["truth"] = _against_truth(given, written, confidence, valid, agreed, truth, num_classes)
    return figures


def _against_truth(
    given: np.ndarray,
    written: np.ndarray,
    confidence: np.ndarray,
    valid: np.ndarray,
    agreed: np.ndarray,
    truth: np.ndarray,
    num_classes: int,
) -> dict[str, Any]:
    matrices = []
    for labels in (given, written):
        counted = valid & (labels != IGNORE_LABEL)
        matrix = ConfusionMatrix(num_classes)
        matrix.update(*(torch.from_numpy(values[counted].astype(np.int64)) for values in (truth, labels)))
        matrices.append(matrix.counts.tolist())
    known = valid & (truth != IGNORE_LABEL)
    right = known & (given == truth)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return {
        "confusion_all": matrices[0],
        "confusion": matrices[1],
        "known_agreed": int((known & agreed).sum()),
        "right_agreed": int((right & agreed).sum()),
        "known_by_confidence": np.bincount(bins[known], minlength=BINS).tolist(),
        "right_by_confidence": np.bincount(bins[right], minlength=BINS).tolist(),
        "confidence_by_bin": [
            round(float(v), 3) for v in np.bincount(bins[known], weights=confidence[known], minlength=BINS)
        ],
    }


def summarize(records: Sequence[Mapping[str, Any]], *, classes: Vocabulary, models: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a set in percent, and what each means.

    Args:
        records: of `image_figures`, one an image.
        classes: the K classes.
        models: labels, in the order of `maps`.
    """
    valid = sum(record["valid"] for record in records)
    counts = np.asarray([record["classes"] for record in records], dtype=np.int64).sum(axis=0)
    figures: dict[str, Any] = {
        "images": len(records),
        "valid pixels": valid,
        "labelled": _percent(int(counts.sum()), valid),
        "class share": {
            name: _percent(int(count), int(counts.sum())) for name, count in zip(classes.names, counts, strict=True)
        },
        "mean confidence": _percent(sum(record["confidence"] for record in records), valid),
        "agreement": _agreement([record for record in records if "agreed" in record], models),
        "quality": _quality([record["truth"] for record in records if "truth" in record], classes, len(models)),
    }
    return {"figures": {key: value for key, value in figures.items() if value is not None}, "definition": DEFINITION}


def _agreement(records: Sequence[Mapping[str, Any]], models: Sequence[str]) -> dict[str, Any] | None:
    seen = [record for record in records if record["valid"]]
    if not seen:
        return None
    shares = [100 * record["agreed"] / record["valid"] for record in seen]
    pairs = np.mean([[100 * count / record["valid"] for count in record["pairs"]] for record in seen], axis=0)
    names = [f"{first} & {second}" for first, second in combinations(models, 2)]
    return {
        "images": len(seen),
        "mean agreement": float(np.mean(shares)),
        "deviation over images": float(np.std(shares)),
        "pairwise agreement": dict(zip(names, pairs.tolist(), strict=True)),
    }


def _quality(truths: Sequence[Mapping[str, Any]], classes: Vocabulary, models: int) -> dict[str, Any] | None:
    if not truths:
        return None
    total = {key: np.sum([truth[key] for truth in truths], axis=0) for key in truths[0]}
    whole, kept = total["confusion_all"].astype(np.int64), total["confusion"].astype(np.int64)
    known, right = total["known_by_confidence"], total["right_by_confidence"]
    share = np.divide(right, known, out=np.zeros(BINS), where=known > 0)
    mean = np.divide(total["confidence_by_bin"], known, out=np.zeros(BINS), where=known > 0)
    found: dict[str, Any] = {
        "images": len(truths),
        "labels as written": _metrics(kept, classes),
        "before anything was left out": _metrics(whole, classes),
        "right by confidence": [
            {"confidence": 100 * float(m), "right": 100 * float(s), "pixels": int(n)}
            for m, s, n in zip(mean, share, known, strict=True)
            if n
        ],
        "calibration error": _percent(float((known * np.abs(share - mean)).sum()), int(known.sum())),
    }
    if models > 1:
        agreed, agreed_right = int(total["known_agreed"]), int(total["right_agreed"])
        found["right where all agree"] = _percent(agreed_right, agreed)
        found["right elsewhere"] = _percent(int(right.sum()) - agreed_right, int(known.sum()) - agreed)
    return found


def _metrics(counts: np.ndarray, classes: Vocabulary) -> dict[str, Any]:
    ious, _ = per_class_metrics(counts)
    headline = summary_metrics(counts, classes)
    return {
        "mIoU": headline["mIoU"],
        "pACC": headline["pACC"],
        "IoU": dict(zip(classes.names, ious, strict=True)),
    }


def _percent(part: float, whole: float) -> float | None:
    return 100 * float(part) / float(whole) if whole else None
