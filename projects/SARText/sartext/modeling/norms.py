"""How a SAR raster becomes what CLIP reads: clipped, brought to 0..255, then CLIP's own constants.

CLIP reads three channels on the 0..255 scale. A SAR band is given to it as grey: the model repeats the band by its
option `bands`, and the norm here does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm

# Of OpenAI's CLIP, RGB on the 0..255 scale.
CLIP_MEAN = (122.7709, 116.7460, 104.0937)
CLIP_STD = (68.5005, 66.6322, 70.3231)


def grey_norm(
    *,
    clip: Sequence[float] | None = (0.0, 255.0),
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
) -> PixelNorm:
    """Return the norm that brings a fixed range to 0..255 and then takes CLIP's constants.

    Args:
        clip: lowest and highest value, in the unit of the raster: (0, 255) for 8-bit amplitude, (-25, 0) for VV in dB.
            None leaves the values as they are, for rasters that are on the 0..255 scale already.
        mean, std: of the model, per channel, on the 0..255 scale.

    Raises:
        UserError: the range is empty.
    """
    if clip is None:
        return PixelNorm(mean=mean, std=std)
    low, high = _ordered(clip)
    scale = (high - low) / 255.0
    return PixelNorm(
        mean=[low + value * scale for value in mean], std=[value * scale for value in std], clip=(low, high)
    )


class PercentileNorm(PixelNorm):
    """Bring the range between two percentiles of each image to 0..255, then take CLIP's constants.

    For amplitude without calibration, whose range differs from product to product. Where backscatter is calibrated a
    fixed range (`grey_norm`) is better: it keeps the difference between a dark and a bright scene.

    Args:
        percentiles: low and high, 0..100, per channel over the pixels with data. SAR has a long bright tail; 1 and 99
            keep ships and buildings bright without darkening all else.
        mean, std: of the model, on the 0..255 scale.

    Raises:
        UserError: percentiles that are not in order.
    """

    def __init__(
        self,
        *,
        percentiles: Sequence[float] = (1.0, 99.0),
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__(mean=mean, std=std)
        low, high = _ordered(percentiles)
        if low < 0 or high > 100:
            raise UserError(f"percentiles must lie in 0..100, got ({low:g}, {high:g})")
        self.percentiles = (low, high)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise; an image of one value, or without data, becomes black.

        Args:
            x: (C, H, W) in any unit that grows with brightness.
            valid: (H, W) bool; pixels without data become 0, the mean, and do not count in the percentiles.

        Returns:
            float32 of the same shape.

        Raises:
            ValueError: the channel count differs from the constants'.
        """
        x = x.to(torch.float32)
        seen = x.flatten(1) if valid is None else x[:, valid]
        if seen.shape[1] == 0:
            return super().forward(torch.zeros_like(x), valid)
        # torch.quantile refuses more than 16 million values; every n-th is as good an estimate
        seen = seen[:, :: max(1, seen.shape[1] // 4_000_000)]
        ranks = torch.tensor(self.percentiles, device=x.device) / 100.0
        low, high = torch.quantile(seen, ranks, dim=1)[:, :, None, None]
        scaled = 255.0 * ((x - low) / (high - low).clamp_min(1e-12)).clamp(0.0, 1.0)
        return super().forward(torch.where(high > low, scaled, torch.zeros_like(scaled)), valid)


def _ordered(pair: Sequence[float]) -> tuple[float, float]:
    if len(pair) != 2 or not float(pair[0]) < float(pair[1]):
        raise UserError(f"a range must be two numbers, the lower first, got {tuple(pair)}")
    return float(pair[0]), float(pair[1])
