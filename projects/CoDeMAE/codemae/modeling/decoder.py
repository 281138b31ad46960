"""From visible units to predicted patches: fusion of the levels and the decoder of masked autoencoders.

Shapes: N images, L units of an image, V of them visible, D width of the decoder, k sub-tokens of a unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.projects.codemae.modeling.blocks import init_weights, transformer_block

LEVEL_NAMES = ("16", "8", "4")
"""Names of modules, coarse to fine. They are the levels' strides for units of 16 pixels, and stay for other units."""


@dataclass(frozen=True)
class DecoderSpec:
    """Size of a decoder; the pretrainer builds it, since it knows what is to be predicted.

    dim: D, also the width of the fused tokens. depth: transformer blocks. num_heads, mlp_ratio: of the blocks.

    Raises:
        UserError: the width is no multiple of 4 and of the heads, or the depth is below 1.
    """

    dim: int = 512
    depth: int = 8
    num_heads: int = 16
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or self.dim % 4:
            raise UserError(
                f"model.decoder.dim is {self.dim} but must be a multiple of 4 and of num_heads ({self.num_heads})"
            )
        if self.depth < 1:
            raise UserError(f"model.decoder.depth is {self.depth} but must be at least 1")


class LevelProjection(nn.Module):
    """Norm and linear map of every sub-token, then the sub-tokens of a unit side by side: (N, V, k, C) -> (N, V, D).

    Args:
        channels: C.
        dim: D, of which every sub-token gives its part.
        sub_tokens: k.
    """

    def __init__(self, channels: int, dim: int, *, sub_tokens: int) -> None:
        super().__init__()
        if dim % sub_tokens:
            raise UserError(f"model.decoder.dim is {dim}, which {sub_tokens} sub-tokens of a unit cannot share")
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.proj = nn.Linear(channels, dim // sub_tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Channels of the first sub-token come first."""
        return self.proj(self.norm(x)).flatten(2)


class LevelFusion(nn.ModuleDict):
    """Add the levels of an encoder into one token a unit; read by the decoders, the distillation and the contrast.

    Args:
        levels: coarse to fine, name -> (sub-tokens, channels), as the encoder's `level_dims`.
        dim: D.

    Raises:
        UserError: more than three levels, or a level whose sub-tokens cannot share D.
    """

    def __init__(self, levels: Mapping[str, tuple[int, int]], *, dim: int) -> None:
        if len(levels) > len(LEVEL_NAMES):
            raise UserError(f"pretraining reads at most {len(LEVEL_NAMES)} levels of an encoder, got {list(levels)}")
        super().__init__(
            {
                name: LevelProjection(channels, dim, sub_tokens=sub_tokens)
                for name, (sub_tokens, channels) in zip(LEVEL_NAMES, levels.values(), strict=False)
            }
        )

    def fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """(N, V, k, C) a level, coarse to fine -> (N, V, D)."""
        return torch.stack([part(x) for part, x in zip(self.values(), levels, strict=True)]).sum(dim=0)


class PatchDecoder(nn.Module):
    """Transformer over the visible tokens and mask tokens of all units, and a linear map to the values of a patch.

    The release pads every level with the mask token before the levels are added, so a masked unit enters as the mask
    token times the number of levels, plus its position; so it is here.

    Args:
        spec: size.
        num_values: what is predicted of a patch.
        num_levels: of the encoder.
    """

    def __init__(self, spec: DecoderSpec, *, num_values: int, num_levels: int) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.mask_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
        self.blocks = nn.ModuleList(
            transformer_block(spec.dim, num_heads=spec.num_heads, mlp_ratio=spec.mlp_ratio) for _ in range(spec.depth)
        )
        self.norm = nn.LayerNorm(spec.dim, eps=1e-6)
        self.pred = nn.Linear(spec.dim, num_values)
        self.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def arrange(self, tokens: Tensor, keep: Tensor, positions: Tensor) -> Tensor:
        """Put visible tokens in their places, mask tokens in the others, and add the positions.

        Args:
            tokens: (N, V, D) fused.
            keep: (N, V) int64, the unit of each.
            positions: (1, L, D).

        Returns:
            (N, L, D).
        """
        masked = (self.num_levels * self.mask_token).to(tokens.dtype)
        x = masked.expand(len(tokens), positions.shape[1], -1)
        return x.scatter(1, keep[..., None].expand_as(tokens), tokens) + positions

    def forward(self, tokens: Tensor, keep: Tensor, positions: Tensor) -> Tensor:
        """Predict all patches, (N, L, num_values); arguments as of `arrange`."""
        x = self.arrange(tokens, keep, positions)
        for block in self.blocks:
            x = block(x)
        return self.pred(self.norm(x))
