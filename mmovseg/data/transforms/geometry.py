"""Geometric transforms that hold for any dtype and band count, and the augmentations that sample them.

Why not detectron2's own: they resample through PIL (8 bit, at most four bands), shift nearest-neighbour labels of
float rasters by half a pixel, pad labels with class 0 in version 0.6, and draw from NumPy's global state.
The augmentations here are detectron2 `Augmentation`s whose `get_transform(image, rng)` draws from the generator of the
sample.

Coordinates follow detectron2: a point is (x, y) in [0, W] x [0, H], and pixel (row r, column c) has its centre at
(c + 0.5, r + 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data.transforms import Augmentation
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
from mmovseg.errors import UserError


class IndexTransform(Transform):
    """A transform that only moves whole pixels, so that it may be applied to any dtype without loss."""


class ResampleTransform(Transform):
    """A transform that interpolates images (bilinear, float32) and repeats label values (nearest).

    Pixels from outside: images repeat the border, labels and masks get 255.
    """

    resamples_uint8 = False
    """True when 8-bit images must reach `apply_image` as they are, because it rounds in its own way."""

    def over_gaps(self) -> Transform:
        """Return what moves an image with pixels without data and its weights: no weight of it may be negative."""
        return self


class Rotate90Transform(IndexTransform):
    """Rotate by `turns` quarter turns counter-clockwise.

    Args:
        height: of the input, pixels.
        width: of the input, pixels.
        turns: 0..3.
    """

    def __init__(self, height: int, width: int, turns: int) -> None:
        super().__init__()
        self.height, self.width, self.turns = height, width, turns

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(img, self.turns))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        x, y = coords[:, 0].copy(), coords[:, 1].copy()
        width, height = self.width, self.height
        for _ in range(self.turns % 4):
            x, y, width, height = y, width - x, height, width
        return np.stack([x, y], axis=1)

    def inverse(self) -> Transform:
        turned = self.turns % 2 == 1
        height, width = (self.width, self.height) if turned else (self.height, self.width)
        return Rotate90Transform(height, width, -self.turns % 4)


class ShiftTransform(IndexTransform):
    """Shift by whole pixels; the canvas keeps its size, and what comes in from outside is 0 in images, 255 in labels.

    Args:
        height: of input and output, pixels.
        width: of input and output, pixels.
        shift_x_px: to the right.
        shift_y_px: downwards.
    """

    def __init__(self, height: int, width: int, shift_x_px: int, shift_y_px: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.shift_x_px, self.shift_y_px = shift_x_px, shift_y_px

    def _shifted(self, array: np.ndarray, fill: float) -> np.ndarray:
        moved = np.full_like(array, fill)
        down, right = self.shift_y_px, self.shift_x_px
        if abs(down) < self.height and abs(right) < self.width:
            rows = slice(max(0, down), self.height + min(0, down)), slice(max(0, -down), self.height - max(0, down))
            columns = (
                slice(max(0, right), self.width + min(0, right)),
                slice(max(0, -right), self.width - max(0, right)),
            )
            moved[rows[0], columns[0]] = array[rows[1], columns[1]]
        return moved

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self._shifted(img, 0)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self._shifted(segmentation, IGNORE_LABEL)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords + np.array([self.shift_x_px, self.shift_y_px])

    def inverse(self) -> Transform:
        return ShiftTransform(self.height, self.width, -self.shift_x_px, -self.shift_y_px)


class ResizeTransform(ResampleTransform):
    """Resize the whole raster; anti-aliased bilinear for images, nearest by pixel centre for labels.

    Args:
        height: of the input, pixels.
        width: of the input, pixels.
        new_height: of the output, pixels.
        new_width: of the output, pixels.
    """

    mode, antialias = "bilinear", True

    def __init__(self, height: int, width: int, new_height: int, new_width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.new_height, self.new_width = new_height, new_width

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        size, batch = (self.new_height, self.new_width), _to_nchw(img)
        resized = F.interpolate(batch, size=size, mode=self.mode, align_corners=False, antialias=self.antialias)
        return _from_nchw(self.limit(resized, batch), img.ndim)

    def limit(self, resized: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Cut off what a filter with negative weights makes up, a linear one nothing; both are (1, B, H, W)."""
        return resized

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        rows = _nearest_centres(self.height, self.new_height)
        columns = _nearest_centres(self.width, self.new_width)
        return segmentation[rows[:, None], columns[None, :]]

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords * np.array([self.new_width / self.width, self.new_height / self.height])

    def inverse(self) -> Transform:
        return ResizeTransform(self.new_height, self.new_width, self.height, self.width)


class AffineTransform(ResampleTransform):
    """Rotate about the centre, then shift; the canvas keeps its size.

    Args:
        height: of input and output, pixels.
        width: of input and output, pixels.
        angle_deg: counter-clockwise as seen on the screen.
        shift_x_px: to the right.
        shift_y_px: downwards.
    """

    def __init__(
        self, height: int, width: int, angle_deg: float = 0.0, shift_x_px: float = 0.0, shift_y_px: float = 0.0
    ) -> None:
        super().__init__()
        self.height, self.width, self.angle_deg = height, width, angle_deg
        self.shift_x_px, self.shift_y_px = shift_x_px, shift_y_px
        cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
        self._forward = np.array([[cos, sin], [-sin, cos]])
        self._centre = np.array([width / 2, height / 2])
        self._shift = np.array([shift_x_px, shift_y_px])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return (coords - self._centre) @ self._forward.T + self._centre + self._shift

    def _sources(self) -> np.ndarray:
        """For every output pixel centre the (x, y) it comes from: (H, W, 2)."""
        x, y = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        targets = np.stack([x, y], axis=-1) - self._centre - self._shift
        return targets @ self._forward + self._centre

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        grid = torch.from_numpy(2.0 * self._sources() / (self.width, self.height) - 1.0).float()[None]
        moved = F.grid_sample(_to_nchw(img), grid, mode="bilinear", padding_mode="border", align_corners=False)
        return _from_nchw(moved, img.ndim)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        # The small step breaks ties of half-pixel positions the same way on every platform.
        index = np.floor(self._sources() + 1e-6).astype(np.int64)
        x, y = index[..., 0], index[..., 1]
        inside = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
        taken = segmentation[np.clip(y, 0, self.height - 1), np.clip(x, 0, self.width - 1)]
        return np.where(inside, taken, np.array(IGNORE_LABEL, dtype=segmentation.dtype))

    def inverse(self) -> Transform:
        back = -(self._forward.T @ self._shift)
        return AffineTransform(self.height, self.width, -self.angle_deg, float(back[0]), float(back[1]))


class _Sampled(Augmentation):
    """Augmentation that draws only from the generator of the sample."""

    draws_from_rng = True


class Resize(_Sampled):
    """Resize to a fixed size, whatever the proportions were.

    Args:
        size: (height, width) in pixels, or one number for both.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        return _resize(image, *self.size)


class ResizeShortestEdge(_Sampled):
    """Resize so that the shorter side has one of the given lengths; proportions are kept.

    Args:
        short_edge_px: one length, or several to choose from at random.
        max_size_px: the longer side never exceeds this, even if the shorter one then stays below.
    """

    def __init__(self, short_edge_px: int | Sequence[int], max_size_px: int | None = None) -> None:
        self.lengths = (short_edge_px,) if isinstance(short_edge_px, int) else tuple(short_edge_px)
        self.max_size_px = max_size_px

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        scale = int(rng.choice(self.lengths)) / min(height, width)
        if self.max_size_px is not None:
            scale = min(scale, self.max_size_px / max(height, width))
        return _resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


class RandomScale(_Sampled):
    """Resize by a random factor, drawn uniformly in its logarithm.

    Args:
        low: smallest factor, above 0.
        high: largest factor.
    """

    def __init__(self, low: float = 0.5, high: float = 2.0) -> None:
        if not 0 < low <= high:
            raise UserError(f"RandomScale needs 0 < low <= high, got low={low} and high={high}")
        self.low, self.high = low, high

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        factor = float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        height, width = image.shape[:2]
        return _resize(image, max(1, round(height * factor)), max(1, round(width * factor)))


class RandomCrop(_Sampled):
    """Cut a window at a random place; a side that is shorter than the window is kept whole.

    Args:
        size: (height, width) in pixels, or one number for both.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        crop_height, crop_width = min(self.size[0], height), min(self.size[1], width)
        top = int(rng.integers(height - crop_height + 1))
        left = int(rng.integers(width - crop_width + 1))
        return CropTransform(left, top, crop_width, crop_height, width, height)


class FixedSizePad(_Sampled):
    """Pad at the right and the bottom up to a size; the margin is invalid. A larger side is left alone, never cropped.

    Args:
        size: (height, width) in pixels, or one number for both.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        right, bottom = max(0, self.size[1] - width), max(0, self.size[0] - height)
        return PadTransform(0, 0, right, bottom, width, height, 0) if right or bottom else NoOpTransform()


class RandomFlip(_Sampled):
    """Mirror left-right, top-bottom, or both, each with its own coin.

    Args:
        horizontal: allow left-right.
        vertical: allow top-bottom. SAR layover points to the sensor, so flips change the apparent look direction.
        prob: probability of each allowed flip, 0..1.
    """

    def __init__(self, *, horizontal: bool = True, vertical: bool = False, prob: float = 0.5) -> None:
        self.horizontal, self.vertical, self.prob = horizontal, vertical, prob

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        coins = rng.random(2) < self.prob
        flips: list[Transform] = []
        if self.horizontal and coins[0]:
            flips.append(HFlipTransform(width))
        if self.vertical and coins[1]:
            flips.append(VFlipTransform(height))
        return TransformList(flips) if flips else NoOpTransform()


class RandomRotate90(_Sampled):
    """Rotate by 0, 1, 2 or 3 quarter turns, each equally likely; loses nothing."""

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        return Rotate90Transform(image.shape[0], image.shape[1], int(rng.integers(4)))


class RandomRotation(_Sampled):
    """Rotate about the centre by any angle; the canvas keeps its size and the corners become invalid.

    Args:
        max_angle_deg: the angle is uniform in [-max_angle_deg, max_angle_deg].
        prob: probability of rotating at all.
    """

    def __init__(self, max_angle_deg: float = 30.0, prob: float = 1.0) -> None:
        self.max_angle_deg, self.prob = max_angle_deg, prob

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        angle_deg = float(rng.uniform(-self.max_angle_deg, self.max_angle_deg))
        if rng.random() >= self.prob:
            return NoOpTransform()
        return AffineTransform(image.shape[0], image.shape[1], angle_deg)


class RandomTranslation(_Sampled):
    """Shift by whole pixels; the margin that opens is invalid.

    Args:
        max_fraction: the shift is uniform in [-max_fraction, max_fraction] of each side.
    """

    def __init__(self, max_fraction: float = 0.1) -> None:
        self.max_fraction = max_fraction

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        shift_x, shift_y = np.rint(rng.uniform(-self.max_fraction, self.max_fraction, 2) * (width, height))
        return ShiftTransform(height, width, int(shift_x), int(shift_y))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if height < 1 or width < 1:
        raise UserError(f"a size in pixels must be positive, got {height}x{width}")
    return height, width


def _resize(image: np.ndarray, new_height: int, new_width: int) -> Transform:
    height, width = image.shape[:2]
    if (height, width) == (new_height, new_width):
        return NoOpTransform()
    return ResizeTransform(height, width, new_height, new_width)


def _nearest_centres(size: int, new_size: int) -> np.ndarray:
    return np.minimum(((np.arange(new_size) + 0.5) * size / new_size).astype(np.int64), size - 1)


def _to_nchw(image: np.ndarray) -> torch.Tensor:
    bands = image[:, :, None] if image.ndim == 2 else image
    return torch.from_numpy(np.ascontiguousarray(bands.transpose(2, 0, 1), dtype=np.float32))[None]


def _from_nchw(batch: torch.Tensor, ndim: int) -> np.ndarray:
    bands = batch[0].permute(1, 2, 0).contiguous().numpy()
    return bands[:, :, 0] if ndim == 2 else bands
