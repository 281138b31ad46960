"""Normalisation of raw pixel values, from the constants of an input contract."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PixelNorm(nn.Module):
    """(clip(x) - mean) / std per channel; constants are not part of the state dict, they belong to the input contract.

    Args:
        mean, std: per channel, in the unit of the raster (0..255 for optical, dB for SAR by default).
        clip: values outside are limited first, in the same unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float], clip: Sequence[float] | None = None) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"need one positive std a mean, got mean {tuple(mean)} and std {tuple(std)}")
        self.clip = (float(clip[0]), float(clip[1])) if clip is not None else None
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: (..., C, H, W) in raster units.
            valid: (..., H, W) bool; pixels without data become 0, the mean.

        Returns:
            float32 of the same shape.

        Raises:
            ValueError: the channel count differs from the constants'.
        """
        if x.shape[-3] != len(self.mean):
            raise ValueError(f"expected {len(self.mean)} channels, got {x.shape[-3]}")
        x = x.to(torch.float32)
        if self.clip is not None:
            x = x.clamp(*self.clip)
        x = (x - self.mean) / self.std
        return x if valid is None else torch.where(valid.unsqueeze(-3), x, torch.zeros_like(x))
