"""One geometric transform for everything that shows the same ground: optical, SAR, label and their masks.

Why: a transform that moves only the optical raster leaves SAR and label behind, silently. `JointSample` is an
`AugInput` of detectron2, so every detectron2 `Augmentation` moves all of its arrays with one sampled parameter set, and
the returned `TransformList` can be replayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from detectron2.data.transforms import AugInput, Augmentation, AugmentationList
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.transforms.geometry import IndexTransform, ResampleTransform

_INDEX_TRANSFORMS = (CropTransform, HFlipTransform, VFlipTransform, NoOpTransform, PadTransform, IndexTransform)
_MIN_WEIGHT = 1e-4


class JointSample(AugInput):
    """Arrays of one pair that geometry moves together. Any of them may be None, but not all.

    optical, optical_clear: (H, W, 3) uint8 or float32, the second one without cloud.
    optical_valid: (H, W) bool, of both of them. None means all True.
    sar: (H, W, P) float32, finite where `sar_valid`; `sar_valid`: (H, W) bool, None means all True.
    sem_seg: (H, W) uint8, 255 = ignore.
    cloud_alpha: (H, W) float32 in [0, 1].
    boxes: (M, 4) float64, x0, y0, x1, y1 in pixels from the top left corner, ends exclusive. They may come to lie
        outside the raster, and a rotation by an angle leaves the upright box around the turned one.
    rng: what the augmentations of this package draw from.

    Whatever a transform brings in from outside the raster is invalid: masks False, label 255, values 0. Images are
    interpolated over valid pixels only, so a hole neither spreads nor darkens its neighbours; labels and masks take
    the nearest pixel.

    Raises:
        ValueError: no array is given, or two of them differ in height or width.
    """

    def __init__(
        self,
        *,
        rng: np.random.Generator,
        optical: np.ndarray | None = None,
        optical_clear: np.ndarray | None = None,
        optical_valid: np.ndarray | None = None,
        sar: np.ndarray | None = None,
        sar_valid: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
        cloud_alpha: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
    ) -> None:
        arrays = {"optical": optical, "optical_clear": optical_clear, "optical_valid": optical_valid, "sar": sar}
        arrays |= {"sar_valid": sar_valid, "sem_seg": sem_seg, "cloud_alpha": cloud_alpha}
        sizes = {name: array.shape[:2] for name, array in arrays.items() if array is not None}
        if not sizes:
            raise ValueError("a joint sample needs at least one array")
        if len(set(sizes.values())) > 1:
            raise ValueError(f"arrays of one sample differ in size: {sizes}")
        self.height, self.width = next(iter(sizes.values()))
        self.rng = rng
        self.boxes = boxes
        self.optical = optical
        self.optical_clear = optical_clear
        self.optical_valid = self._mask(optical_valid) if optical is not None else None
        self.sar = sar
        self.sar_valid = self._mask(sar_valid) if sar is not None else None
        self.sem_seg = sem_seg
        self.cloud_alpha = cloud_alpha

    def _mask(self, mask: np.ndarray | None) -> np.ndarray:
        return np.ones((self.height, self.width), dtype=bool) if mask is None else mask.astype(bool)

    @property
    def image(self) -> np.ndarray:
        """The array whose size stock augmentations look at: optical, else SAR, else the label."""
        for array in (self.optical, self.sar, self.sem_seg, self.cloud_alpha):
            if array is not None:
                return array
        raise ValueError("a joint sample needs at least one array")

    def apply_augmentations(self, augmentations: Sequence[Augmentation | Transform]) -> TransformList:
        """Apply `augmentations` in order, in place, and return what was sampled, ready to be replayed."""
        done = []
        for augmentation in AugmentationList(augmentations).augs:
            with _seed_global_numpy(self.rng, augmentation):
                done.append(augmentation(self))
        return TransformList(done)

    def transform(self, tfm: Transform) -> None:
        """Move all arrays by one deterministic transform, in place."""
        if isinstance(tfm, TransformList):
            for single in tfm.transforms:
                self.transform(single)
            return
        inside = tfm.apply_segmentation(np.ones((self.height, self.width), dtype=np.uint8)) == 1
        optical_valid, sar_valid = self.optical_valid, self.sar_valid
        self.optical_valid = _move_mask(tfm, optical_valid, inside)
        self.sar_valid = _move_mask(tfm, sar_valid, inside)
        self.optical = _move_image(tfm, self.optical, optical_valid, self.optical_valid)
        self.optical_clear = _move_image(tfm, self.optical_clear, optical_valid, self.optical_valid)
        self.sar = _move_image(tfm, self.sar, sar_valid, self.sar_valid)
        self.cloud_alpha = _move_image(tfm, self.cloud_alpha, self._mask(None), inside)
        if self.sem_seg is not None:
            self.sem_seg = np.where(inside, tfm.apply_segmentation(self.sem_seg), IGNORE_LABEL).astype(np.uint8)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        self.height, self.width = inside.shape


def _move_mask(tfm: Transform, mask: np.ndarray | None, inside: np.ndarray) -> np.ndarray | None:
    if mask is None:
        return None
    return (tfm.apply_segmentation(mask.astype(np.uint8)) == 1) & inside


def _move_image(
    tfm: Transform, image: np.ndarray | None, valid: np.ndarray | None, new_valid: np.ndarray | None
) -> np.ndarray | None:
    if image is None or new_valid is None or valid is None:
        return None
    as_stored = isinstance(tfm, ResampleTransform) and tfm.resamples_uint8 and image.dtype == np.uint8 and valid.all()
    if isinstance(tfm, _INDEX_TRANSFORMS) or as_stored:
        moved = np.array(tfm.apply_image(image))
    else:
        moved = _resample(tfm, image.astype(np.float32), valid)
        if np.issubdtype(image.dtype, np.integer):
            info = np.iinfo(image.dtype)
            moved = np.clip(np.rint(moved), info.min, info.max)
        moved = moved.astype(image.dtype)
    moved[~new_valid] = 0
    return moved


def _resample(tfm: Transform, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Interpolate over valid pixels only: transform values and weights apart, then divide."""
    if valid.all() and isinstance(tfm, ResampleTransform):
        return tfm.apply_image(image)
    tfm = tfm.over_gaps() if isinstance(tfm, ResampleTransform) else tfm
    mask = valid if image.ndim == 2 else valid[:, :, None]
    values = tfm.apply_image(np.where(mask, image, np.float32(0)))
    weights = tfm.apply_image(valid.astype(np.float32))
    weights = weights if image.ndim == 2 else weights[:, :, None]
    return values / np.maximum(weights, _MIN_WEIGHT)


@contextmanager
def _seed_global_numpy(rng: np.random.Generator, augmentation: Augmentation) -> Iterator[None]:
    """Make stock detectron2 augmentations, which draw from NumPy's global state, follow `rng` and leave no trace."""
    if getattr(augmentation, "draws_from_rng", False):
        yield
        return
    state = np.random.get_state()
    np.random.seed(int(rng.integers(2**32)))
    try:
        yield
    finally:
        np.random.set_state(state)
