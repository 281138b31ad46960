"""Images as rows of patches, and the error of predicted patches.

Shapes: N images, L patches of an image (row-major), p side of a patch in pixels, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-6  # beside the variance of a patch, as in MAE


def to_patches(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches: (N, C, H, W) -> (N, L, p*p, C), pixels row-major; H and W are multiples of `patch`."""
    n, c, h, w = images.shape
    cut = images.reshape(n, c, h // patch, patch, w // patch, patch).permute(0, 2, 4, 3, 5, 1)
    return cut.reshape(n, (h // patch) * (w // patch), patch * patch, c)


def from_patches(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put patches together: (N, h*w, p*p, C) -> (N, C, h*p, w*p); the inverse of `to_patches`.

    Args:
        patches: row-major over `grid`.
        grid: (h, w) in patches.
    """
    n, _, pixels, c = patches.shape
    side = round(pixels**0.5)
    split = patches.reshape(n, *grid, side, side, c).permute(0, 5, 1, 3, 2, 4)
    return split.reshape(n, c, grid[0] * side, grid[1] * side)


def patch_moments(patches: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of every patch over all its pixels and channels.

    The variance is the unbiased one, and 1e-6 is added to it before the root.

    Args:
        patches: (N, L, p*p, C).
        valid: (N, L, p*p, 1), 1 where a pixel holds data, else 0; None = everywhere. A patch without data has mean 0.

    Returns:
        Two (N, L, 1, 1) tensors.
    """
    weights = torch.ones_like(patches) if valid is None else valid.to(patches.dtype).expand_as(patches)
    count = weights.sum(dim=(2, 3), keepdim=True)
    mean = (patches * weights).sum(dim=(2, 3), keepdim=True) / count.clamp_min(1.0)
    squares = ((patches - mean).square() * weights).sum(dim=(2, 3), keepdim=True)
    return mean, (squares / (count - 1.0).clamp_min(1.0) + _EPS).sqrt()


def masked_number(mask: Tensor, valid: Tensor | None, *, patch: int) -> Tensor:
    """Count the masked patches, each by its share of pixels with data; arguments and answer as of `masked_error`."""
    chosen = mask.float()
    return chosen.sum() if valid is None else (chosen * to_patches(valid.float(), patch).mean(dim=(2, 3))).sum()


def masked_error(
    predicted: Tensor,
    target: Tensor,
    mask: Tensor,
    valid: Tensor | None,
    *,
    patch: int,
    normalise: bool,
) -> tuple[Tensor, Tensor]:
    """Sum the squared error over the masked patches, and say how many patches these are.

    Pixels without data enter neither the moments of their patch nor the error, and a patch counts by its share of
    pixels with data. Where all hold data the sum is that of ``(1 / (p*p*C)) ||predicted_i - target_i||^2``.

    Args:
        predicted: (N, L, p*p*P) with P >= C values a pixel, ordered row, column, channel; of a decoder that serves
            targets of several widths the first C of every pixel count.
        target: (N, C, H, W), finite also where there is no data.
        mask: (N, L) bool, True = masked.
        valid: (N, 1, H, W) bool, or None.
        patch: p.
        normalise: compare with ``(x - mean) / deviation`` of every patch, see `patch_moments`.

    Returns:
        The 0-d sum, and the 0-d number of patches.
    """
    wanted = to_patches(target.float(), patch)
    weights = None if valid is None else to_patches(valid.float(), patch)
    if normalise:
        mean, deviation = patch_moments(wanted, weights)
        wanted = (wanted - mean) / deviation
    given = predicted.float().unflatten(-1, (patch * patch, -1))[..., : wanted.shape[-1]]
    errors = (given - wanted).square()
    if weights is not None:
        errors = errors * weights
    return (errors.mean(dim=(2, 3)) * mask).sum(), masked_number(mask, valid, patch=patch)
