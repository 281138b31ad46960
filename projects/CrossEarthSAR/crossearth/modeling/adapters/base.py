"""How small trainable parts are put into a frozen vision transformer, dense or with experts.

The encoder stays the object that it was: its class, the names of its weights and what it returns do not change, and the
adapter is its part ``adapter``. Hooks on the blocks do the rest, so that recomputed and sharded blocks take it along.

Letters: N images, L tokens, C width, h w token grid.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from mmovseg.checkpoint.load import load_weights
from mmovseg.errors import UserError
from mmovseg.modeling.backbone import TimmEncoder


def adapt_encoder(encoder: TimmEncoder, *, adapter: Adapter, weights: str | None = None) -> TimmEncoder:
    """Freeze an encoder and let `adapter` change what its blocks give.

    Args:
        encoder: with its weights; it is changed and returned.
        adapter: becomes ``encoder.adapter``, the only part that trains.
        weights: the adapter's own file, or the checkpoint of a model that holds it at ``encoder.adapter``; None = its
            random start.

    Raises:
        UserError: the encoder has an adapter already or does not suit this one, or the file does not fit.
    """
    if hasattr(encoder, "adapter"):
        raise UserError(f"the encoder already has an adapter ({type(encoder.adapter).__name__}); give it one")
    encoder.freeze = True
    encoder.requires_grad_(False)
    encoder.eval()
    adapter.attach(encoder)
    encoder.adapter = adapter
    if weights is not None:
        load_weights(adapter, weights, part="encoder.adapter")
    return encoder


class Adapter(nn.Module):
    """Base of all adapters. Its parameters are allocated when the encoder is known."""

    @abstractmethod
    def attach(self, encoder: TimmEncoder) -> None:
        """Allocate parameters for the blocks that run, the deepest tap being the last, and hook them.

        Raises:
            UserError: the encoder has nothing that this adapter can work on.
        """


class BlockAdapter(Adapter):
    """Base of adapters that change the patch tokens behind each block; class token and registers pass by them."""

    def __init__(self) -> None:
        super().__init__()
        self.num_prefix = 0
        # Several sizes may be in flight when blocks are run again in the backward pass.
        self._grids: dict[int, tuple[int, int]] = {}

    @abstractmethod
    def allocate(self, *, width: int, depth: int, patch_size: int) -> None:
        """Make the parameters for `depth` blocks of `width` channels."""

    @abstractmethod
    def adapt(self, patches: Tensor, block: int, grid: tuple[int, int]) -> Tensor:
        """Change the tokens behind a block.

        Args:
            patches: (N, h*w, C), row by row.
            block: its number, from 1.
            grid: (h, w).

        Returns:
            (N, h*w, C).
        """

    def attach(self, encoder: TimmEncoder) -> None:
        """See `Adapter`."""
        depth = max(encoder.taps)
        self.num_prefix = int(encoder.model.num_prefix_tokens)
        self.allocate(width=int(encoder.model.embed_dim), depth=depth, patch_size=encoder.patch_size)
        encoder.model.patch_embed.register_forward_pre_hook(_GridReader(self, encoder.patch_size))
        for number, block in enumerate(encoder.model.blocks[:depth], 1):
            block.register_forward_hook(_BehindBlock(self, number))

    def forward(self, tokens: Tensor, block: int) -> Tensor:
        """Change what a block gave: (N, prefix + h*w, C) -> the same shape."""
        prefix, patches = tokens[:, : self.num_prefix], tokens[:, self.num_prefix :]
        adapted = self.adapt(patches, block, self._grids[patches.shape[1]])
        return torch.cat([prefix, adapted.to(prefix.dtype)], dim=1) if self.num_prefix else adapted


# Hooks are objects and no closures, so that a copied encoder has hooks that hold its own copy of the adapter.
class _GridReader:
    """Notes the token grid of an image before it is cut into patches."""

    def __init__(self, adapter: BlockAdapter, patch_size: int) -> None:
        self.adapter, self.patch_size = adapter, patch_size

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        height, width = (size // self.patch_size for size in arguments[0].shape[-2:])
        self.adapter._grids[height * width] = (height, width)


class _BehindBlock:
    """Hands a block's output through the adapter."""

    def __init__(self, adapter: BlockAdapter, number: int) -> None:
        self.adapter, self.number = adapter, number

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, ...], tokens: Tensor) -> Tensor:
        return self.adapter(tokens, self.number)
