"""Scales and crops of segmentation recipes, beside those of `mmovseg.data.transforms.geometry`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import CropTransform, NoOpTransform, Transform

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.transforms.geometry import ResizeTransform
from mmovseg.errors import UserError


class UniformScale(Augmentation):
    """Resize by a random factor, drawn uniformly; `RandomScale` draws uniformly in the logarithm.

    Args:
        low: smallest factor, above 0.
        high: largest factor.
        base_px: length of the shorter side at factor 1; None = as it is.
    """

    draws_from_rng = True

    def __init__(self, low: float = 0.5, high: float = 2.0, *, base_px: int | None = None) -> None:
        if not 0 < low <= high:
            raise UserError(f"UniformScale needs 0 < low <= high, got low={low} and high={high}")
        if base_px is not None and base_px < 1:
            raise UserError(f"UniformScale needs base_px of at least 1, got {base_px}")
        self.low, self.high, self.base_px = low, high, base_px

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        factor = float(rng.uniform(self.low, self.high))
        if self.base_px is not None:
            factor *= self.base_px / min(height, width)
        new = max(1, round(height * factor)), max(1, round(width * factor))
        return NoOpTransform() if new == (height, width) else ResizeTransform(height, width, *new)


class BalancedCrop(Augmentation):
    """Cut a window at a random place, drawn anew as long as one class covers most of it.

    A side that is shorter than the window is kept whole. Without labels it is an ordinary random crop.

    Args:
        size: (height, width) in pixels, or one number for both.
        max_share: of the labelled pixels that one class may cover; a window of one class alone never passes below 1.
        tries: windows to draw; the last one is taken whatever it holds.
    """

    draws_from_rng = True

    def __init__(self, size: int | Sequence[int], *, max_share: float = 0.75, tries: int = 10) -> None:
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(height, width, tries) < 1 or not 0 < max_share <= 1:
            raise UserError(
                f"BalancedCrop needs a positive size and tries and a max_share in (0, 1], got size {height}x{width}, "
                f"tries {tries} and max_share {max_share}"
            )
        self.size, self.max_share, self.tries = (height, width), max_share, tries

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        crop_height, crop_width = min(self.size[0], height), min(self.size[1], width)
        top = left = 0
        for _ in range(self.tries):
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            if sem_seg is None or self._is_mixed(sem_seg[top : top + crop_height, left : left + crop_width]):
                break
        return CropTransform(left, top, crop_width, crop_height, width, height)

    def _is_mixed(self, label: np.ndarray) -> bool:
        counts = np.bincount(label[label != IGNORE_LABEL].ravel())
        return bool(np.count_nonzero(counts) > 1 and counts.max() <= self.max_share * counts.sum())
