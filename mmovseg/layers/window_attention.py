"""Attention among places within windows, steered by image features that all classes share.

Source: Liu et al., Swin Transformer (2021), https://arxiv.org/abs/2103.14030, as CAT-Seg (Cho et al., 2024,
https://arxiv.org/abs/2303.11797) applies it to cost volumes: queries and keys also see an appearance feature.

Shapes: N images, K classes, C channels of the volume, G of the guidance, h w the grid, L places of a window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MASKED = -100.0  # as in Swin; far below any logit, and a row that is masked everywhere stays finite


def fit_window(grid: tuple[int, int], window: int, shift: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the window and the shift for each axis of a grid.

    Along an axis that one window covers, the window shrinks to the grid and nothing is shifted: all places already see
    each other.
    """
    height, width = (min(window, side) for side in grid)
    down, right = (shift if side > window else 0 for side in grid)
    return (height, width), (down, right)


def shifted_window_mask(
    grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], *, device: torch.device | str | None = None
) -> Tensor | None:
    """Return what is added to the attention logits, or None when every place of a window may see all others.

    After the cyclic shift a window may hold places from opposite borders; these must not see each other. Nor may any
    place see the padding of a grid that is no multiple of the window.

    Args:
        grid: (h, w) before padding.
        window: (rows, columns) of a window.
        shift: (rows, columns) by which the padded grid was rolled up and left.
        device: where to make it.

    Returns:
        (windows, L, L) float32 of 0 and -100, windows in row-major order.
    """
    labels, mixed = [], False
    for side, size, step in zip(grid, window, shift, strict=True):
        padded = -(-side // size) * size
        place = (torch.arange(padded, device=device) + step) % padded  # of each row before the shift
        border = torch.arange(padded, device=device)
        label = (border >= padded - size).long() + (border >= padded - step) if step else torch.zeros_like(border)
        labels.append(torch.where(place < side, label, torch.full_like(label, -1)))
        mixed = mixed or step > 0 or padded != side
    if not mixed:
        return None
    rows, columns = labels
    region = torch.where((rows[:, None] < 0) | (columns < 0), -1, 3 * rows[:, None] + columns)
    region = region.unflatten(0, (-1, window[0])).unflatten(2, (-1, window[1])).transpose(1, 2).flatten(2).flatten(0, 1)
    apart = region[:, :, None] != region[:, None, :]
    return torch.zeros(apart.shape, device=device).masked_fill(apart, _MASKED)


class GuidedWindowBlock(nn.Module):
    """Pre-norm transformer block whose attention stays within windows; queries and keys also read the guidance.

    The projection of [x; guidance] is linear, so the part of the guidance is computed once an image and broadcast over
    the classes: same function as with concatenation, same parameters.

    Args:
        channels: C.
        guidance_channels: G.
        num_heads: attention heads; must divide C.
        window: side of a window in places.
        shift: places by which the windows are moved, 0 = not.
    """

    def __init__(self, channels: int, guidance_channels: int, *, num_heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.num_heads, self.window, self.shift = num_heads, window, shift
        self.norm1 = nn.LayerNorm(channels)
        self.query = nn.Linear(channels + guidance_channels, channels)
        self.key = nn.Linear(channels + guidance_channels, channels)
        self.value = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor, guidance: Tensor, num_classes: int) -> Tensor:
        """Refine class maps.

        Args:
            x: (N*K, h, w, C), classes of one image next to each other; any h, w.
            guidance: (N, h, w, G).
            num_classes: K.

        Returns:
            (N*K, h, w, C).
        """
        x = x + self.proj(self._attend(self._project(self.norm1(x), guidance, num_classes)))
        return x + self.mlp(self.norm2(x))

    def _project(self, x: Tensor, guidance: Tensor, num_classes: int) -> Tensor:
        """Queries, keys and values side by side: (N*K, h, w, 3C)."""
        channels = x.shape[-1]
        own = torch.cat([self.query.weight[:, :channels], self.key.weight[:, :channels], self.value.weight])
        steering = torch.cat([self.query.weight[:, channels:], self.key.weight[:, channels:]])
        shared = F.linear(guidance, steering, torch.cat([self.query.bias, self.key.bias]))
        shared = torch.cat([shared, self.value.bias.expand(*shared.shape[:-1], -1)], dim=-1)
        return (F.linear(x, own).unflatten(0, (-1, num_classes)) + shared[:, None]).flatten(0, 1)

    def _attend(self, qkv: Tensor) -> Tensor:
        """(N*K, h, w, 3C) -> (N*K, h, w, C)."""
        height, width, channels = qkv.shape[1], qkv.shape[2], qkv.shape[3] // 3
        window, shift = fit_window((height, width), self.window, self.shift)
        qkv = F.pad(qkv, (0, 0, 0, -width % window[1], 0, -height % window[0]))
        if any(shift):
            qkv = qkv.roll((-shift[0], -shift[1]), dims=(1, 2))
        rows, columns = qkv.shape[1] // window[0], qkv.shape[2] // window[1]
        # (M, rows, wh, columns, ww, 3, heads, d) -> 3 x (M, windows * heads, L, d)
        parts = qkv.unflatten(3, (3, self.num_heads, -1)).unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
        parts = parts.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(2, 4).flatten(3, 4)
        mask = shifted_window_mask((height, width), window, shift, device=qkv.device)
        if mask is not None:
            mask = mask.to(qkv.dtype).repeat_interleave(self.num_heads, dim=0)[None]
        out = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=mask)
        out = out.unflatten(1, (rows, columns, self.num_heads)).unflatten(4, window)
        out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(qkv), rows * window[0], columns * window[1], channels)
        if any(shift):
            out = out.roll(shift, dims=(1, 2))
        return out[:, :height, :width]


class WindowAttentionPair(nn.Module):
    """Two window blocks, the second shifted by half a window, so that neighbouring windows exchange.

    Args: as of `GuidedWindowBlock`.
    """

    def __init__(self, channels: int, guidance_channels: int, *, num_heads: int, window: int) -> None:
        super().__init__()
        self.guidance_norm = nn.LayerNorm(guidance_channels)
        self.blocks = nn.ModuleList(
            GuidedWindowBlock(channels, guidance_channels, num_heads=num_heads, window=window, shift=shift)
            for shift in (0, window // 2)
        )

    def forward(self, x: Tensor, guidance: Tensor, num_classes: int) -> Tensor:
        """Refine (N*K, C, h, w) class maps with (N, G, h, w) guidance; the result has the shape of `x`."""
        guidance = self.guidance_norm(guidance.permute(0, 2, 3, 1))
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, guidance, num_classes)
        return x.permute(0, 3, 1, 2)
