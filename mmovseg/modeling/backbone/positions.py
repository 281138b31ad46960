"""How DINO v1 resizes its learned position table, which timm does otherwise.

Source: Caron et al., DINO (2021), https://arxiv.org/abs/2104.14294. Its code asks the interpolation for a scale factor
of (n + 0.1) / N from N to n places instead of for the size n, so that rounding never loses a place. The factor also
sets where the table is sampled, so features differ from a resize to the same size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

# The MM-OVSeg release writes the factor of its only input size, 384 px with patches of 8 on a table of 28x28, as a
# constant.
RELEASED_SCALE = 48.1 / 28


def resize_positions_dino_v1(table: Tensor, size: tuple[int, int], *, released_factor: bool = True) -> Tensor:
    """Resize a position table bicubically at DINO v1's sampling points.

    Args:
        table: (1, C, H, W).
        size: (h, w) wanted.
        released_factor: where the constant factor of the MM-OVSeg release leads to `size`, use it; elsewhere that
            release fails, and DINO's own rule is used. False = DINO's own rule everywhere.

    Returns:
        (1, C, h, w); `table` itself where it has this size.
    """
    if tuple(table.shape[-2:]) == tuple(size):
        return table
    scale = tuple(_scale(old, new, released_factor) for old, new in zip(table.shape[-2:], size, strict=True))
    return F.interpolate(table, scale_factor=scale, mode="bicubic", align_corners=False, recompute_scale_factor=False)


def _scale(old: int, new: int, released_factor: bool) -> float:
    old, new = int(old), int(new)  # a tracer hands in tensors
    return RELEASED_SCALE if released_factor and math.floor(old * RELEASED_SCALE) == new else (new + 0.1) / old


class DinoV1Transformer(VisionTransformer):
    """timm's vision transformer with class token, positions resized as by `resize_positions_dino_v1`."""

    def _pos_embed(self, x: Tensor) -> Tensor:
        """(N, h, w, C) patches -> (N, 1 + h*w, C) tokens with positions."""
        size = (x.shape[1], x.shape[2])
        table = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, tuple(self.patch_embed.grid_size))
        table = resize_positions_dino_v1(table, size).flatten(2).transpose(1, 2)
        positions = torch.cat([self.pos_embed[:, :1], table], dim=1)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(tokens + positions)
