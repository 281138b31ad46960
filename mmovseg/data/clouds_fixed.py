"""One cloud over many images, for example from a file: to compare models, or image sources, under the same sky."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mmovseg.data.clouds import CloudField
from mmovseg.data.transforms.geometry import ResizeTransform
from mmovseg.errors import UserError

CloudFit = Literal["resize", "crop"]


class FixedClouds:
    """Lay one and the same cloud over every image.

    Args:
        field: the cloud, or a file that `CloudField.save` wrote.
        fit: how the cloud gets the size of an image. ``resize`` stretches all of it (anti-aliased bilinear), so every
            image of one size wears exactly the same cloud. ``crop`` keeps its pixels and cuts a window of the image's
            size at a place that is drawn for each image; without an `rng` that is the upper left corner.
        seed: added to the number of the cloud in ``crop``.

    Raises:
        UserError: unknown `fit`, or the file is missing or no cloud.
    """

    def __init__(self, *, field: CloudField | str | Path, fit: CloudFit = "resize", seed: int = 0) -> None:
        if fit not in get_args(CloudFit):
            raise UserError(f"a cloud is fitted by {' or '.join(get_args(CloudFit))}, got fit='{fit}'")
        self.cloud = field if isinstance(field, CloudField) else CloudField.load(field)
        self.fit = fit
        self.seed = seed

    def __call__(
        self, optical: np.ndarray, rng: int | np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Put the cloud over an image; arguments and results as of `CloudSynthesizer`.

        Raises:
            UserError: the image is larger than the cloud and `fit` is ``crop``.
        """
        field = self.field(optical.shape[0], optical.shape[1], rng)
        return field.apply(optical), field.alpha, field.shadow

    def field(self, height: int, width: int, rng: int | np.random.Generator | None = None) -> CloudField:
        """Return the cloud for images of (height, width) pixels; `rng` and errors as in `__call__`."""
        own_height, own_width = self.cloud.alpha.shape
        if (height, width) == (own_height, own_width):
            return self.cloud
        if self.fit == "resize":
            resize = ResizeTransform(own_height, own_width, height, width)
            color = np.clip(resize.apply_image(self.cloud.color), 0.0, 255.0)
            # Interpolation may leave the range by a rounding error.
            alpha, shadow = (
                np.clip(resize.apply_image(mask), 0.0, float(mask.max()))
                for mask in (self.cloud.alpha, self.cloud.shadow)
            )
            return CloudField(alpha, color, shadow)
        if height > own_height or width > own_width:
            raise UserError(
                f"no window of {height}x{width} pixels can be cut from a cloud of {own_height}x{own_width} "
                "(height x width); use fit='resize' or a larger cloud"
            )
        top, left = 0, 0
        if rng is not None:
            draw = rng if isinstance(rng, np.random.Generator) else np.random.default_rng([self.seed, rng])
            top, left = int(draw.integers(own_height - height + 1)), int(draw.integers(own_width - width + 1))
        window = (slice(top, top + height), slice(left, left + width))
        return CloudField(self.cloud.alpha[window], self.cloud.color[window], self.cloud.shadow[window])
