"""Random crops of any size and proportion, resized to one size: the augmentation of image pretraining."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import CropTransform, Transform, TransformList
from torch import Tensor

from mmovseg.data.transforms.geometry import ResizeTransform
from mmovseg.errors import UserError

_ATTEMPTS = 10


class CubicResizeTransform(ResizeTransform):
    """`ResizeTransform` with a bicubic filter (a = -0.75); nothing leaves the range of the values that were there.

    A cubic filter overshoots at edges. 8-bit libraries cut that off at 0 and 255; here it is cut off at the extremes of
    each band, so that amplitude stays positive and dB gets no echoes that nobody measured. Where pixels without data
    are to be left out the linear filter is taken: the weights of a cubic one would be negative there.

    Args:
        height: of the input, pixels.
        width: of the input, pixels.
        new_height: of the output, pixels.
        new_width: of the output, pixels.
        antialias: widen the filter when shrinking. Without it single pixels are picked, so that speckle keeps its
            statistics but fine patterns may alias.
    """

    mode = "bicubic"

    def __init__(self, height: int, width: int, new_height: int, new_width: int, *, antialias: bool = False) -> None:
        super().__init__(height, width, new_height, new_width)
        self.antialias = antialias

    def limit(self, resized: Tensor, image: Tensor) -> Tensor:
        return torch.clamp(resized, image.amin(dim=(2, 3), keepdim=True), image.amax(dim=(2, 3), keepdim=True))

    def over_gaps(self) -> Transform:
        return ResizeTransform(self.height, self.width, self.new_height, self.new_width)

    def inverse(self) -> Transform:
        return CubicResizeTransform(self.new_height, self.new_width, self.height, self.width, antialias=self.antialias)


class RandomResizedCrop(Augmentation):
    """Cut a window of random area and proportion at a random place and resize it, bicubic, to a square.

    The area is uniform in `scale`, the proportion uniform in its logarithm; a window that does not fit is drawn again,
    after ten times the largest one of the nearest allowed proportion is cut from the middle.

    Args:
        size: side of the result, pixels.
        scale: smallest and largest area of the window, as a share of the raster, 0..1.
        ratio: smallest and largest width / height of the window.
        antialias: see `CubicResizeTransform`.

    Raises:
        UserError: `size`, `scale` or `ratio` is out of range.
    """

    draws_from_rng = True

    def __init__(
        self,
        size: int,
        *,
        scale: Sequence[float] = (0.2, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        antialias: bool = False,
    ) -> None:
        if size < 1:
            raise UserError(f"RandomResizedCrop needs a size of at least 1 pixel, got {size}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(f"RandomResizedCrop needs 0 < low <= high <= 1 as scale, got {tuple(scale)}")
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
            raise UserError(f"RandomResizedCrop needs 0 < low <= high as ratio, got {tuple(ratio)}")
        self.size, self.antialias = int(size), antialias
        self.scale, self.ratio = (float(scale[0]), float(scale[1])), (float(ratio[0]), float(ratio[1]))

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        top, left, crop_height, crop_width = self._window(height, width, rng)
        transforms: list[Transform] = []
        if (crop_height, crop_width) != (height, width):
            transforms.append(CropTransform(left, top, crop_width, crop_height, width, height))
        if (crop_height, crop_width) != (self.size, self.size):
            transforms.append(
                CubicResizeTransform(crop_height, crop_width, self.size, self.size, antialias=self.antialias)
            )
        return TransformList(transforms)

    def _window(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the window."""
        areas = rng.uniform(*self.scale, _ATTEMPTS) * (height * width)
        ratios = np.exp(rng.uniform(np.log(self.ratio[0]), np.log(self.ratio[1]), _ATTEMPTS))
        place = rng.random(2)  # drawn whatever happens, so that a stream always advances by the same amount
        for area, ratio in zip(areas, ratios, strict=True):
            crop_width, crop_height = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(place[0] * (height - crop_height + 1))
                return top, int(place[1] * (width - crop_width + 1)), crop_height, crop_width
        proportion = float(np.clip(width / height, *self.ratio))
        crop_width, crop_height = min(width, round(height * proportion)), min(height, round(width / proportion))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
