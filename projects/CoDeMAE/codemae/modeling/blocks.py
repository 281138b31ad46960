"""Parts of an encoder that works on mask units: blocks, merging, splitting, positions.

A unit is what masking keeps or drops, the patch of a plain vision transformer. A hierarchical encoder starts with 4x4
sub-tokens in every unit, which are merged to 2x2 and to one.

Shapes: N images, V units of an image (all or the visible ones), k sub-tokens of a unit (side squared, row-major),
C channels.

Source: HiViT (Zhang et al., 2023, https://arxiv.org/abs/2205.14949) and iTPN (Tian et al., 2023,
https://arxiv.org/abs/2211.12735), which CoDe-MAE builds on.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mmovseg.modeling.backbone.positions import resize_positions_dino_v1


def transformer_block(
    dim: int, *, num_heads: int, mlp_ratio: float = 4.0, norm_eps: float = 1e-6, drop_path: float = 0.0
) -> Block:
    """Return a pre-norm transformer block over (N, L, C) tokens: `norm1`, `attn.{qkv,proj}`, `norm2`, `mlp.{fc1,fc2}`.

    It is timm's, with attention in one fused kernel. CoDe-MAE casts the attention logits to float32 before the softmax;
    fused kernels keep the softmax in float32 by themselves, so autocast needs nothing more.

    Args:
        dim: C, a multiple of `num_heads`.
        num_heads: of attention.
        mlp_ratio: width of the hidden layer in parts of `dim`.
        norm_eps: of both norms.
        drop_path: chance of dropping a branch of a row in training.
    """
    norm = partial(nn.LayerNorm, eps=norm_eps)
    return Block(dim, num_heads, mlp_ratio=mlp_ratio, qkv_bias=True, drop_path=drop_path, norm_layer=norm)


class MlpBlock(nn.Module):
    """Pre-norm residual MLP that works on every sub-token by itself, so that nothing leaves a unit.

    Args: as of `transformer_block`.
    """

    def __init__(self, dim: int, *, mlp_ratio: float, norm_eps: float = 1e-6, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, ..., C) -> (N, ..., C)."""
        return x + self.drop_path(self.mlp(self.norm2(x)))


class UnitMerge(nn.Module):
    """Halve the side of the sub-grid: four neighbours side by side, norm, linear map.

    Neighbours go down before they go right: (0, 0), (1, 0), (0, 1), (1, 1) as (row, column).

    Args:
        dim: channels of a sub-token.
        out_dim: channels afterwards.
        norm_eps: of the norm over the four.
    """

    def __init__(self, dim: int, out_dim: int, *, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=norm_eps)
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, V, k, C) -> (N, V, k/4, out_dim)."""
        half = math.isqrt(x.shape[2]) // 2
        x = x.unflatten(2, (half, 2, half, 2)).permute(0, 1, 2, 4, 5, 3, 6)  # ..., column, row, C within the four
        return self.reduction(self.norm(x.flatten(4).flatten(2, 3)))


class UnitSplit(nn.Module):
    """Double the side of the sub-grid: norm, linear map to four times the channels, which unfold to 2x2 sub-tokens.

    Args:
        dim: channels of a sub-token.
        out_dim: channels of each of the four; they lie as (row, column, channel).
        norm_eps: of the norm.
    """

    def __init__(self, dim: int, out_dim: int, *, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.reduction = nn.Linear(dim, 4 * out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, V, k, C) -> (N, V, 4k, out_dim)."""
        side = math.isqrt(x.shape[2])
        x = self.reduction(self.norm(x)).unflatten(3, (2, 2, -1)).unflatten(2, (side, side))
        return x.transpose(3, 4).flatten(2, 5)


class UnitEmbedding(nn.Module):
    """Embed the pixels of the units that are kept, each unit as a grid of sub-tokens.

    A convolution whose stride is its kernel is a linear map of patches. Written so, only the pixels of visible units
    are read, and no gradient has to be scattered back over the masked ones. `proj` holds the filters as a convolution
    does, the layout of published weights.

    Args:
        in_chans: channels of the image.
        dim: channels of a sub-token.
        unit_size: side of a unit in pixels.
        side: sub-tokens along a side of a unit; must divide `unit_size`.
        norm_eps: of the norm behind the embedding; None = no norm.
        bias: of the embedding.
    """

    def __init__(
        self, in_chans: int, dim: int, *, unit_size: int, side: int, norm_eps: float | None = 1e-6, bias: bool = True
    ) -> None:
        super().__init__()
        self.unit_size, self.side = unit_size, side
        patch = unit_size // side
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch, stride=patch, bias=bias)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(dim, eps=norm_eps)

    @property
    def in_chans(self) -> int:
        """Channels of the image."""
        return self.proj.in_channels

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Embed.

        Args:
            x: (N, in_chans, H, W); H and W multiples of `unit_size`.
            keep: (N, V) indices of units, row-major; None = all in their order.

        Returns:
            (N, V, side**2, dim).
        """
        size = self.unit_size
        columns = x.shape[3] // size
        x = x.unflatten(3, (columns, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5)  # (N, h, w, C, u, u)
        if keep is None:
            x = x.flatten(1, 2)
        else:
            rows = torch.arange(len(x), device=x.device)[:, None]
            x = x[rows, keep // columns, keep % columns]
        patch = size // self.side
        x = x.unflatten(4, (self.side, patch)).unflatten(3, (self.side, patch)).permute(0, 1, 3, 5, 2, 4, 6)
        return self.norm(F.linear(x.flatten(4).flatten(2, 3), self.proj.weight.flatten(1), self.proj.bias))


def fold_units(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put the sub-tokens of all units in their places: (N, h*w, k, C) -> (N, C, h*side, w*side).

    Args:
        x: units in row-major order, sub-tokens too.
        grid: (h, w) in units.
    """
    side = math.isqrt(x.shape[2])
    x = x.unflatten(2, (side, side)).unflatten(1, grid).permute(0, 5, 1, 3, 2, 4)
    return x.flatten(4).flatten(2, 3)


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Return MAE's fixed positions (1, h*w, dim): sines and cosines of the column, then of the row.

    Args:
        grid: (h, w).
        dim: a multiple of 4.

    Raises:
        ValueError: `dim` is none.
    """
    if dim % 4:
        raise ValueError(f"sine-cosine positions need a multiple of 4 channels, got {dim}")
    height, width = grid
    rates = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row = torch.arange(height, dtype=torch.float64).repeat_interleave(width)[:, None] * rates
    column = torch.arange(width, dtype=torch.float64).repeat(height)[:, None] * rates
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1).float()[None]


def resize_positions(positions: Tensor, native: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Bring positions to another grid, bicubically at the sampling points of DINO v1.

    Args:
        positions: (1, h*w, C) of the grid `native`.
        native: (h, w) that they were made for.
        grid: (h, w) wanted.

    Returns:
        (1, h*w, C); `positions` itself where the grids are equal.
    """
    if tuple(native) == tuple(grid):
        return positions
    table = positions.transpose(1, 2).unflatten(2, tuple(native))
    return resize_positions_dino_v1(table, grid, released_factor=False).flatten(2).transpose(1, 2)


def init_weights(module: nn.Module) -> None:
    """Start a fresh linear layer as MAE does: truncated normal of deviation 0.02, no bias. For `nn.Module.apply`.

    Norms start at 1 and 0 by themselves. Convolutions keep torch's start: a norm behind the embedding takes its scale.
    """
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
