"""What a threshold alone reaches on OMBRIA: the simplest things a trained model has to beat.

Each takes one number a pixel from the images and calls everything above a threshold flooded. The threshold is the one
with the highest pooled IoU on the training places, or Otsu's, taken from each image by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from mmovseg.data.sample import IGNORE_LABEL, DatasetDict, RawSample, Reader

_SMOOTH_PX = 5
_NUM_THRESHOLDS = 64


def sar_change(sample: RawSample) -> np.ndarray:
    """Darkening of the radar image, before minus after, mean of 5x5 pixels: open water reflects the pulse away."""
    assert sample.sar is not None
    return cv2.blur(sample.sar[..., 0] - sample.sar[..., 1], (_SMOOTH_PX, _SMOOTH_PX))


def sar_darkness(sample: RawSample) -> np.ndarray:
    """255 minus the later radar image, mean of 5x5 pixels."""
    assert sample.sar is not None
    return 255.0 - cv2.blur(sample.sar[..., -1], (_SMOOTH_PX, _SMOOTH_PX))


def optical_wetness(sample: RawSample) -> np.ndarray:
    """Water index of the later optical image, (green - SWIR) / (green + SWIR), -1..1."""
    assert sample.optical is not None
    swir, green = sample.optical[..., -3].astype(np.float32), sample.optical[..., -1].astype(np.float32)
    return (green - swir) / np.maximum(green + swir, 1.0)


FEATURES: dict[str, tuple[Callable[[RawSample], np.ndarray], tuple[float, float]]] = {
    "sar_change": (sar_change, (-100.0, 150.0)),
    "sar_darkness": (sar_darkness, (0.0, 255.0)),
    "optical_wetness": (optical_wetness, (-1.0, 1.0)),
}
"""Name -> feature and the range in which thresholds are tried."""

BASELINES = ("all_flooded", "otsu_sar_change", *FEATURES)


def run_baseline(
    name: str, train: Sequence[DatasetDict], test: Sequence[DatasetDict], reader: Reader
) -> dict[str, np.ndarray]:
    """Fit a baseline on training places and count it on test places.

    Args:
        name: one of `BASELINES`.
        train: used for the threshold of the fitted ones.
        test: places to count.
        reader: gives both dates.

    Returns:
        image id -> (2, 2) int64, rows truth (dry, flooded), columns predicted.
    """
    if name == "all_flooded":
        return {item["image_id"]: _count(reader(item), lambda s: np.ones(_label(s).shape, bool)) for item in test}
    if name == "otsu_sar_change":
        return {item["image_id"]: _count(reader(item), lambda s: _otsu(sar_change(s))) for item in test}
    feature, (low, high) = FEATURES[name]
    thresholds = np.linspace(low, high, _NUM_THRESHOLDS)
    threshold = _best_threshold(feature, thresholds, train, reader)
    return {item["image_id"]: _count(reader(item), lambda s: feature(s) > threshold) for item in test}


def _best_threshold(
    feature: Callable[[RawSample], np.ndarray], thresholds: np.ndarray, train: Sequence[DatasetDict], reader: Reader
) -> float:
    """Return the threshold with the highest IoU of the flooded class, pooled over the places."""
    bins = np.concatenate([[-np.inf], thresholds, [np.inf]])
    histogram = np.zeros((2, len(bins) - 1), dtype=np.int64)
    for item in train:
        sample = reader(item)
        label, values = _label(sample), feature(sample)
        for truth in (0, 1):
            histogram[truth] += np.histogram(values[label == truth], bins)[0]
    above = histogram[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # pixels at or above each threshold
    flooded = histogram[1].sum()
    return float(thresholds[np.argmax(above[1] / np.maximum(flooded + above[0], 1))])


def _label(sample: RawSample) -> np.ndarray:
    assert sample.sem_seg is not None
    return sample.sem_seg


def _count(sample: RawSample, predict: Callable[[RawSample], np.ndarray]) -> np.ndarray:
    label, predicted = _label(sample), predict(sample)
    known = label != IGNORE_LABEL
    return np.bincount(label[known] * 2 + predicted[known], minlength=4).reshape(2, 2)


def _otsu(values: np.ndarray) -> np.ndarray:
    shifted = np.clip(values + 128.0, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(shifted, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return shifted > threshold
