"""Attention among the classes of one place, linear in their number.

Source: Katharopoulos et al., Transformers are RNNs (2020), https://arxiv.org/abs/2006.16236, as CAT-Seg (Cho et al.,
2024, https://arxiv.org/abs/2303.11797) applies it to cost volumes, with learned padding classes.

Shapes: N images, K classes, C channels of the volume, G of the guidance, h w the grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-6  # keeps the normaliser positive


class ClassAttentionBlock(nn.Module):
    """Let the classes of an image see each other at each place of a coarser grid, and add the result to the volume.

    The volume is pooled, every place attends over the classes with kernel phi = elu + 1, an MLP follows, and the result
    is resized (corners aligned) and added.

    Padding: with fewer than `class_padding` classes the keys are filled up with copies of one learned class, which
    dilutes the attention and is part of the function. All copies are equal, so here they are one key with a weight.
    A consequence of this block: the scores of a class depend on which other classes are asked for, and on how many.

    Args:
        channels: C.
        guidance_channels: G.
        num_heads: attention heads; must divide C.
        pooling: side of the pooled cells; cells at the border of a grid that is no multiple are smaller.
        class_padding: number of classes up to which keys are filled.
    """

    def __init__(
        self, channels: int, guidance_channels: int, *, num_heads: int, pooling: int = 2, class_padding: int = 256
    ) -> None:
        super().__init__()
        self.num_heads, self.pooling, self.class_padding = num_heads, pooling, class_padding
        self.norm1 = nn.LayerNorm(channels)
        self.query = nn.Linear(channels + guidance_channels, channels)
        self.key = nn.Linear(channels + guidance_channels, channels)
        self.value = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
        self.padding_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.padding_guidance = nn.Parameter(torch.zeros(1, 1, guidance_channels))

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Refine class maps.

        Args:
            x: (N, K, C, h, w).
            guidance: (K, G), one vector a class name.

        Returns:
            (N, K, C, h, w).
        """
        count, (height, width) = x.shape[1], x.shape[-2:]
        pooled = F.avg_pool2d(x.flatten(0, 1), self.pooling, ceil_mode=True)
        small = pooled.shape[-2:]
        tokens = pooled.unflatten(0, (-1, count)).permute(0, 3, 4, 1, 2)  # (N, h', w', K, C)
        tokens = tokens + self._attend(self.norm1(tokens), guidance)
        tokens = tokens + self.mlp(self.norm2(tokens))
        maps = tokens.permute(0, 3, 4, 1, 2).flatten(0, 1)
        if small != (height, width):
            maps = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=True)
        return x + maps.unflatten(0, (-1, count))

    def _attend(self, tokens: Tensor, guidance: Tensor) -> Tensor:
        """(N, h, w, K, C) normalised tokens -> the same shape."""
        channels = tokens.shape[-1]
        query = self._heads(self._project(self.query, tokens, guidance, channels), positive=True)
        key = self._heads(self._project(self.key, tokens, guidance, channels), positive=True)
        value = self._heads(self.value(tokens))
        key_sum = key.sum(dim=-3)  # (..., heads, d)
        key_value = torch.einsum("...khd,...khe->...hde", key, value)
        missing = self.class_padding - tokens.shape[-2]
        if missing > 0:
            padding = self.norm1(self.padding_token[0])
            padding_key = self._project(self.key, padding, self.padding_guidance[0], channels)
            one_key, one_value = self._heads(padding_key, positive=True)[0], self._heads(self.value(padding))[0]
            key_sum = key_sum + missing * one_key
            key_value = key_value + missing * one_key[:, :, None] * one_value[:, None, :]
        total = torch.einsum("...khd,...hd->...kh", query, key_sum) + _EPSILON
        return (torch.einsum("...khd,...hde->...khe", query, key_value) / total[..., None]).flatten(-2)

    def _heads(self, x: Tensor, *, positive: bool = False) -> Tensor:
        """(..., C) -> (..., heads, d), through phi if asked."""
        x = x.unflatten(-1, (self.num_heads, -1))
        return F.elu(x) + 1 if positive else x

    @staticmethod
    def _project(layer: nn.Linear, tokens: Tensor, guidance: Tensor, channels: int) -> Tensor:
        """layer([tokens; guidance]) with the part of the guidance computed once for all places."""
        return F.linear(tokens, layer.weight[:, :channels]) + F.linear(guidance, layer.weight[:, channels:], layer.bias)
