"""Rein-like adapter: learned tokens that patch tokens look into, between the blocks.

Source: Wei et al., Rein (CVPR 2024), https://arxiv.org/abs/2312.04265, eq. 2 to 7. Without its last part, which makes
queries of a Mask2Former out of the tokens: the adapter then works under any head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.projects.crossearth.modeling.adapters.base import BlockAdapter


class ReinAdapter(BlockAdapter):
    """Add ``scale * W_f(x + S W_t(T))`` to the patch tokens x, with S = softmax(x T' / sqrt(C)) over the tokens T.

    The tokens of each block are a product of two low-rank factors; W_t and W_f are shared by all blocks. The first
    token takes attention and gives nothing, so that a patch may leave all others alone.

    Args:
        num_tokens: of each block, at least 2.
        rank: of the factors of the tokens.
        scale_init: initial value of the factor, which is learned and shared.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, *, num_tokens: int = 100, rank: int = 16, scale_init: float = 0.001) -> None:
        super().__init__()
        if num_tokens < 2 or rank < 1:
            raise UserError(
                f"a Rein adapter needs at least 2 tokens and rank 1, but num_tokens is {num_tokens} and rank {rank}"
            )
        self.num_tokens, self.rank, self.scale_init = num_tokens, rank, scale_init

    def allocate(self, *, width: int, depth: int, patch_size: int) -> None:
        """See `BlockAdapter`."""
        bound = math.sqrt(6.0 / (3 * patch_size**2 + math.sqrt(width * self.rank)))  # as the release
        self.factors = nn.ParameterList()  # two of each block
        for _ in range(depth):
            for shape in ((self.num_tokens, self.rank), (self.rank, width)):
                self.factors.append(nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))
        self.token_map, self.delta_map = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((1,), self.scale_init))  # one axis: a plain number cannot be sharded

    def adapt(self, patches: Tensor, block: int, grid: tuple[int, int]) -> Tensor:
        """See `BlockAdapter`."""
        tokens = self.factors[2 * block - 2] @ self.factors[2 * block - 1]
        scores = (patches @ tokens.T / math.sqrt(patches.shape[-1])).softmax(dim=-1)
        looked_up = scores[..., 1:] @ self.token_map(tokens[1:])
        return patches + self.scale * self.delta_map(looked_up + patches)
