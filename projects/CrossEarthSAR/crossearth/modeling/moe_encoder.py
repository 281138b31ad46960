"""Vision transformers whose MLPs are sparse mixtures of experts, as detectron2 backbones (paper Sec. 3.3).

Letters: N images, L tokens an image, C width, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.backbone.timm_encoder import PositionResize
from mmovseg.projects.crossearth.losses.balance import load_balance
from mmovseg.projects.crossearth.modeling.descriptors import NUM_DESCRIPTORS, SARDescriptors
from mmovseg.projects.crossearth.modeling.experts import Implementation
from mmovseg.projects.crossearth.modeling.moe import ExpertStatistics, SparseMoE
from mmovseg.projects.crossearth.modeling.router import Gate


class Adapter(Protocol):
    """What `MoEEncoder` asks of an adapter module."""

    def attach(self, encoder: MoEEncoder) -> None:
        """Get ready for this encoder, once, after its weights were loaded and frozen."""

    def __call__(self, tokens: Tensor, *, layer: int, grid: tuple[int, int], prefix: int) -> Tensor:
        """(N, L, C) output of block `layer` (from 0), `prefix` of L tokens without a place -> (N, L, C)."""


class MoEEncoder(TimmEncoder):
    """A timm vision transformer with experts in place of its MLPs, or, with ``num_experts=None``, as it is.

    Args:
        name: timm model name of a plain vision transformer, DINOv2 or DINOv3.
        taps: 1-based block numbers to return, as ``block<n>``.
        num_experts: E; None = the dense model with the same interface, as a control.
        top_k: experts a token goes to.
        gate: see `Router`.
        descriptors: what the routers read beside the token; None = nothing.
        raw_norm: the normalisation of the images, which is undone for the descriptors where a caller gives no raster.
        layers: 1-based numbers of the blocks that get experts, or ``"all"`` (paper).
        balance_weight: lambda of the balance loss.
        final_norm: bring the maps through the model's last norm. Off as in Rein, whose decoder reads the bare blocks.
        adapter: small trainable module that runs behind every block, see `Adapter`.
        checkpointing: recompute blocks in the backward pass instead of keeping their activations.
        freeze: keep all weights but the adapter's fixed, in eval mode.
        weights, in_chans, image_size, model_args, local_last_block, position_resize, keep_rope_periods: see
            `TimmEncoder`.

    Raises:
        UserError: the model cannot become a mixture of experts, or see `TimmEncoder`.
    """

    def __init__(
        self,
        name: str,
        *,
        taps: Sequence[int],
        num_experts: int | None = 6,
        top_k: int = 1,
        gate: Gate = "st",
        descriptors: SARDescriptors | None = None,
        raw_norm: PixelNorm | None = None,
        layers: Sequence[int] | Literal["all"] = "all",
        router_init_std: float = 0.02,
        balance_weight: float = 0.005,
        count_prefix: bool = True,
        implementation: Implementation = "auto",
        weights: str | None = None,
        in_chans: int = 3,
        image_size: int | None = None,
        model_args: dict[str, Any] | None = None,
        local_last_block: bool = False,
        position_resize: PositionResize = "timm",
        keep_rope_periods: bool = False,
        final_norm: bool = False,
        adapter: nn.Module | None = None,
        checkpointing: bool = False,
        freeze: bool = False,
    ) -> None:
        super().__init__(
            name,
            taps=taps,
            weights=weights,
            in_chans=in_chans,
            image_size=image_size,
            model_args=model_args,
            local_last_block=local_last_block,
            position_resize=position_resize,
            keep_rope_periods=keep_rope_periods,
            freeze=False,
        )
        if not isinstance(self.model, VisionTransformer | Eva):
            raise UserError(f"MoEEncoder needs a vision transformer of timm (also DINOv2, DINOv3), '{name}' is none")
        self.num_experts, self.balance_weight = num_experts, balance_weight
        self.final_norm, self.checkpointing, self.freeze = final_norm, checkpointing, freeze
        self.descriptors = descriptors if num_experts is not None else None
        self.raw_norm = raw_norm
        depth = len(self.model.blocks)
        chosen = range(1, depth + 1) if layers == "all" else sorted(int(layer) for layer in layers)
        for layer in chosen if num_experts is not None else ():
            block = self.model.blocks[layer - 1]
            block.mlp = SparseMoE(
                block.mlp,
                dim=self.model.embed_dim,
                num_experts=num_experts or 0,
                top_k=top_k,
                gate=gate,
                num_descriptors=NUM_DESCRIPTORS if descriptors is not None else 0,
                init_std=router_init_std,
                uncounted=0 if count_prefix else self.model.num_prefix_tokens,
                implementation=implementation,
            )
        if freeze:
            self.requires_grad_(False)
            self.eval()
        self.adapter = adapter
        if adapter is not None:
            adapter.attach(self)  # type: ignore[operator]

    @property
    def mixtures(self) -> dict[str, SparseMoE]:
        """The layers with experts by the name of their block, ``block1``, ..."""
        blocks = {f"block{number}": block.mlp for number, block in enumerate(self.model.blocks, 1)}
        return {name: mlp for name, mlp in blocks.items() if isinstance(mlp, SparseMoE)}

    def forward(self, x: Tensor, *, raw: Tensor | None = None, valid: Tensor | None = None) -> dict[str, Tensor]:
        """Encode images.

        Args:
            x: (N, in_chans, H, W) normalised; H and W multiples of the patch size.
            raw: (N, C, H, W) the same images as rasters, for the descriptors; None = `raw_norm` is undone on `x`.
            valid: (N, H, W) bool, False = no data or padding; None = all of `raw`, or what is not exactly 0 in `x`.

        Returns:
            One (N, C, H/p, W/p) map a tap.
        """
        return self.encode(x, raw=raw, valid=valid)[0]

    def encode(
        self, x: Tensor, *, raw: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encode images; the maps of `forward`, and a tap's class token (N, C) if the model has one."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and (not self.freeze or self.adapter is not None)):
            described = self._describe(x, raw, valid)
            grid = (x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size)
            outputs = self._run(x, described, grid)
        prefix = self.model.num_prefix_tokens
        maps = {name: tokens[:, prefix:].transpose(1, 2).unflatten(2, grid) for name, tokens in outputs.items()}
        return maps, {name: tokens[:, 0] for name, tokens in outputs.items()} if self.has_class_token else {}

    def _describe(self, x: Tensor, raw: Tensor | None, valid: Tensor | None) -> Tensor | None:
        if self.descriptors is None:
            return None
        if raw is None:
            if self.raw_norm is None:
                raise UserError("descriptors need the raster: give `raw`, or the encoder's `raw_norm`")
            valid = (x != 0).any(dim=1) if valid is None else valid
            raw = x.float() * self.raw_norm.std + self.raw_norm.mean
        return self.descriptors(raw, valid)

    def _run(self, x: Tensor, described: Tensor | None, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Run the blocks up to the deepest tap; the tokens (N, L, C) of each."""
        model, outputs = self.model, {}
        tokens = model._pos_embed(model.patch_embed(x))
        tokens, rope = tokens if isinstance(tokens, tuple) else (tokens, None)
        if getattr(model, "patch_drop", None) is not None and isinstance(model, VisionTransformer):
            tokens = model.patch_drop(tokens)
        tokens = model.norm_pre(tokens)
        for index in range(max(self.taps)):
            own = rope[index] if rope is not None and getattr(model, "rope_mixed", False) else rope
            if self.checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(self._run_block, index, tokens, described, own, grid, use_reentrant=False)
            else:
                tokens = self._run_block(index, tokens, described, own, grid)
            if index + 1 in self.taps:
                outputs[f"block{index + 1}"] = model.norm(tokens) if self.final_norm else tokens
        return {name: outputs[name] for name in self.feature_names}

    def _run_block(
        self, index: int, tokens: Tensor, described: Tensor | None, rope: Tensor | None, grid: tuple[int, int]
    ) -> Tensor:
        block = self.model.blocks[index]
        if isinstance(block.mlp, SparseMoE):
            block.mlp.descriptors = described  # here, so that a recomputed block sees its own images
        tokens = block(tokens) if rope is None else block(tokens, rope=rope)
        if self.adapter is not None:
            tokens = self.adapter(tokens, layer=index, grid=grid, prefix=self.model.num_prefix_tokens)
        return tokens

    def balance_loss(self) -> Tensor:
        """Mean over the layers with experts of n * sum f p (eq. 11 without lambda) for the last batch, 0-d."""
        terms = [
            load_balance(stat.counts.float() / stat.tokens, stat.probabilities)
            for stat in self.expert_statistics().values()
        ]
        if not terms:
            raise ValueError("the encoder has no experts, or has not seen a batch yet")
        return torch.stack(terms).mean()

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """``{"loss_moe_balance": lambda * balance_loss()}`` in training, else nothing."""
        if not self.training or not self.mixtures or self.freeze or self.balance_weight == 0:
            return {}
        return {"loss_moe_balance": self.balance_weight * self.balance_loss()}

    def expert_statistics(self) -> dict[str, ExpertStatistics]:
        """What each layer with experts did with the last batch."""
        return {name: mlp.last for name, mlp in self.mixtures.items() if mlp.last is not None}
