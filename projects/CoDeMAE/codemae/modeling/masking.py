"""Which units of an image a masked autoencoder sees, and how much data these hold."""

from __future__ import annotations

import torch
from torch import Tensor

from mmovseg.layers.conv import masked_mean_pool


def num_visible(units: int, mask_ratio: float) -> int:
    """Return how many of `units` stay visible: at least one, rounded down as in MAE (49 of 196 at 0.75)."""
    return max(1, int(units * (1 - mask_ratio)))


def draw_visible(rows: int, units: int, mask_ratio: float) -> Tensor:
    """Draw the visible units of each row, uniformly, from torch's global CPU generator, which a resumed run restores.

    Args:
        rows: B pairs; both images of a pair get the same units, also when they show different places.
        units: L of an image.
        mask_ratio: share that is masked.

    Returns:
        (B, V) int64, in the random order of the draw, as in MAE.
    """
    return torch.rand(rows, units).argsort(dim=1)[:, : num_visible(units, mask_ratio)]


def masked_units(keep: Tensor, units: int) -> Tensor:
    """Return (B, L) bool, True = masked, for the visible units (B, V)."""
    masked = torch.ones(len(keep), units, dtype=torch.bool, device=keep.device)
    return masked.scatter(1, keep, torch.zeros_like(keep, dtype=torch.bool))


def visible_shares(valid: Tensor | None, grid: tuple[int, int], keep: Tensor) -> Tensor | None:
    """Return the share of pixels with data in each visible unit.

    Args:
        valid: (B, 1, H, W) bool; None = all hold data.
        grid: (h, w) units.
        keep: (B, V) visible units.

    Returns:
        (B, V) in [0, 1], None with `valid` None.
    """
    return None if valid is None else masked_mean_pool(valid, grid).flatten(1).gather(1, keep)
