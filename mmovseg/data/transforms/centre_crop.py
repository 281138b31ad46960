"""Fixed geometry of whole images: cut the centre, resize to one size. Nothing is drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import CropTransform, NoOpTransform, PadTransform, Transform, TransformList

from mmovseg.data.transforms.resized_crop import CubicResizeTransform
from mmovseg.errors import UserError


class CentreCrop(Augmentation):
    """Cut the window in the middle; a side that is shorter is padded on both ends, and the margin is invalid.

    Scale is kept: a small chip stays small within a margin without data, which normalisation turns into the mean.

    Args:
        size: (height, width) in pixels, or one number for both.

    Raises:
        UserError: a side below 1.
    """

    draws_from_rng = True

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size, "CentreCrop")

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        new_height, new_width = self.size
        steps: list[Transform] = []
        if height < new_height or width < new_width:
            rows, columns = max(0, new_height - height), max(0, new_width - width)
            top, left = rows // 2, columns // 2
            steps.append(PadTransform(left, top, columns - left, rows - top, width, height, 0))
            height, width = height + rows, width + columns
        if (height, width) != self.size:
            top, left = (height - new_height) // 2, (width - new_width) // 2
            steps.append(CropTransform(left, top, new_width, new_height, width, height))
        return TransformList(steps) if steps else NoOpTransform()


class CubicResize(Augmentation):
    """Resize to a fixed size with a bicubic filter, whatever the proportions were.

    Args:
        size: (height, width) in pixels, or one number for both.
        antialias: see `CubicResizeTransform`; it matters only where the raster shrinks.

    Raises:
        UserError: a side below 1.
    """

    draws_from_rng = True

    def __init__(self, size: int | Sequence[int], *, antialias: bool = True) -> None:
        self.size, self.antialias = _pair(size, "CubicResize"), antialias

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        if (height, width) == self.size:
            return NoOpTransform()
        return CubicResizeTransform(height, width, *self.size, antialias=self.antialias)


class CubicResizeShortestEdge(Augmentation):
    """Resize with a bicubic filter so that the shorter side has a given length; proportions are kept.

    Args:
        short_edge_px: length of the shorter side.
        antialias: see `CubicResize`.

    Raises:
        UserError: a length below 1.
    """

    draws_from_rng = True

    def __init__(self, short_edge_px: int, *, antialias: bool = True) -> None:
        self.short_edge_px, self.antialias = _pair(short_edge_px, "CubicResizeShortestEdge")[0], antialias

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        scale = self.short_edge_px / min(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        return CubicResize(size, antialias=self.antialias).get_transform(image, rng)


def _pair(size: int | Sequence[int], name: str) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if height < 1 or width < 1:
        raise UserError(f"{name} needs sides of at least 1 pixel, got {height}x{width}")
    return height, width
