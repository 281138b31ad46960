"""The geometry that the released checkpoints were trained and tested with.

The authors' mapper resizes optical and label through PIL, leaves SAR where it is, and lays each on a square canvas, at
its top left corner. It is kept beside the paired geometry so that their figures can be met.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image

from mmovseg.data.transforms.geometry import ResampleTransform, ResizeShortestEdge

GREY = 128
"""What the canvas holds outside optical and SAR: data to the released models, which know no masks."""


class PilResizeTransform(ResampleTransform):
    """Resize as detectron2 does for 8-bit images: PIL's bilinear filter, and its nearest one for labels.

    PIL rounds 8-bit images after each direction, so these are resized as they are and never as floats. Floats (SAR of
    the paired geometry, weights) take the same filter without rounding.

    Args:
        height: of the input, pixels.
        width: of the input, pixels.
        new_height: of the output, pixels.
        new_width: of the output, pixels.
    """

    resamples_uint8 = True

    def __init__(self, height: int, width: int, new_height: int, new_width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.new_height, self.new_width = new_height, new_width

    def _resize(self, band: np.ndarray, method: Image.Resampling) -> np.ndarray:
        return np.array(Image.fromarray(band).resize((self.new_width, self.new_height), method))

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        if img.dtype == np.uint8 and (img.ndim == 2 or img.shape[2] == 3):
            return self._resize(np.ascontiguousarray(img), Image.Resampling.BILINEAR)
        bands = (img[:, :, None] if img.ndim == 2 else img).astype(np.float32)
        resized = [self._resize(bands[:, :, index], Image.Resampling.BILINEAR) for index in range(bands.shape[2])]
        return resized[0] if img.ndim == 2 else np.stack(resized, axis=2)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self._resize(np.ascontiguousarray(segmentation.astype(np.uint8)), Image.Resampling.NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords * np.array([self.new_width / self.width, self.new_height / self.height])

    def inverse(self) -> Transform:
        return PilResizeTransform(self.new_height, self.new_width, self.height, self.width)


class PilResizeShortestEdge(ResizeShortestEdge):
    """`ResizeShortestEdge` through PIL, with detectron2's rounding of the longer side (half up).

    Args:
        short_edge_px: one length, or several to choose from at random.
        max_size_px: the longer side never exceeds this, even if the shorter one then stays below.
    """

    def __init__(self, short_edge_px: int | Sequence[int], max_size_px: int | None = None) -> None:
        super().__init__(short_edge_px, max_size_px)

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> Transform:
        height, width = image.shape[:2]
        short = float(rng.choice(self.lengths))
        scale = short / min(height, width)
        new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
        if self.max_size_px is not None and max(new_height, new_width) > self.max_size_px:
            shrink = self.max_size_px / max(new_height, new_width)
            new_height, new_width = new_height * shrink, new_width * shrink
        size = (int(new_height + 0.5), int(new_width + 0.5))
        return NoOpTransform() if size == (height, width) else PilResizeTransform(height, width, *size)


def lay_on_canvas(array: np.ndarray, size_px: int, fill: float) -> np.ndarray:
    """Return the top left `size_px` x `size_px` pixels: what is beyond is cut off, what is missing is filled.

    Args:
        array: (H, W) or (H, W, B).
        size_px: side of the canvas.
        fill: value outside the raster.

    Returns:
        (size_px, size_px) or (size_px, size_px, B) of the same dtype, a copy.
    """
    canvas = np.full((size_px, size_px, *array.shape[2:]), fill, dtype=array.dtype)
    height, width = min(array.shape[0], size_px), min(array.shape[1], size_px)
    canvas[:height, :width] = array[:height, :width]
    return canvas
