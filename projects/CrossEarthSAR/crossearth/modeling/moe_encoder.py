"""Vision transformers whose MLPs are sparse mixtures of experts, as detectron2 backbones (paper Sec. 3.3).

Letters: N images, L tokens an image, C width, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmovseg.checkpoint.load import copy_state
from mmovseg.errors import UserError
from mmovseg.layers.distributed import world_size
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.backbone.timm_encoder import PositionResize
from mmovseg.projects.crossearth.losses.balance import BalanceShare, check_balance_share, load_balance, share_of
from mmovseg.projects.crossearth.modeling.descriptors import NUM_DESCRIPTORS, SARDescriptors
from mmovseg.projects.crossearth.modeling.encoder_weights import (
    EncoderState,
    WeightResize,
    fit_state,
    read_encoder_state,
)
from mmovseg.projects.crossearth.modeling.experts import Implementation
from mmovseg.projects.crossearth.modeling.moe import ExpertStatistics, SparseMoE
from mmovseg.projects.crossearth.modeling.router import Gate


class MoEEncoder(TimmEncoder):
    """A timm vision transformer with experts in place of its MLPs, or, with ``num_experts=None``, as it is.

    The experts start as copies of the MLP that they replace (sparse upcycling), so with the gates ``st`` and ``renorm``
    the encoder starts as exactly the dense model. All tokens are routed, the class token and registers too: anything
    else would change that start. The paper is silent on it.

    Args:
        name: timm model name of a plain vision transformer, DINOv2 or DINOv3.
        taps: 1-based block numbers to return, as ``block<n>``.
        num_experts: E; None = the dense model with the same interface, as a control.
        top_k: experts a token goes to.
        gate: see `Router`.
        descriptors: what the routers read beside the token; None = nothing.
        raw_norm: the normalisation of the images, which is undone for the descriptors where a caller gives no raster,
            as MM-OVSeg and the aligner do.
        layers: 1-based numbers of the blocks that get experts, or ``all`` (paper).
        router_init_std: see `Router`.
        balance_weight: lambda of the balance loss; 0 = without it.
        balance_share: what a layer's f counts when a token has several experts: ``tokens`` that have the expert among
            theirs (paper, f sums to k), or ``choices`` (f sums to 1, so that the loss has the same scale for every k).
        count_prefix: count the class token and registers in the balance loss and the statistics.
        sync_statistics: take f over all processes, so that several have the loss of one with the whole batch.
        implementation: see `Experts`.
        weights: ``timm``, a file of a dense model, of an encoder of this kind or of a training run that holds one,
            ``folded:<file>`` and ``clip:<file>`` as for `TimmEncoder`, None = random. Dense weights are upcycled.
        weights_resize: how weights for other patches or another image size are brought to this one: ``release`` (plain
            bicubic, as Rein converts DINOv2) or ``timm``; see `fit_state`.
        in_chans, image_size, model_args, local_last_block, position_resize, keep_rope_periods: see `TimmEncoder`.
        final_norm: bring the maps through the model's last norm. Off as in Rein, whose decoder reads the bare blocks;
            MM-OVSeg and the aligner want it.
        checkpointing: recompute blocks in the backward pass instead of keeping their activations.
        freeze: keep all weights fixed, in eval mode.

    Raises:
        UserError: the model cannot become a mixture of experts, a layer that it does not have, or see `TimmEncoder`
            and `Router`.
    """

    reads_raw = True  # `forward` takes the raster beside the image

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
        balance_share: BalanceShare = "tokens",
        count_prefix: bool = True,
        sync_statistics: bool = True,
        implementation: Implementation = "auto",
        weights: str | None = None,
        weights_resize: WeightResize = "release",
        in_chans: int = 3,
        image_size: int | None = None,
        model_args: dict[str, Any] | None = None,
        local_last_block: bool = False,
        position_resize: PositionResize = "timm",
        keep_rope_periods: bool = False,
        final_norm: bool = False,
        checkpointing: bool = False,
        freeze: bool = False,
    ) -> None:
        from_clip = weights is not None and weights.startswith("clip:")
        super().__init__(
            name,
            taps=taps,
            weights=weights if from_clip else None,
            in_chans=in_chans,
            image_size=image_size,
            model_args=model_args,
            local_last_block=local_last_block,
            position_resize=position_resize,
            keep_rope_periods=keep_rope_periods,
            freeze=False,
        )
        if not isinstance(self.model, VisionTransformer | Eva):
            raise UserError(f"MoEEncoder needs a plain vision transformer, DINOv2 or DINOv3 of timm; '{name}' is none")
        self.num_experts, self.weights = num_experts, weights
        self.balance_weight, self.sync_statistics = balance_weight, sync_statistics
        self.final_norm, self.recompute = final_norm, checkpointing
        self.balance_share: BalanceShare = check_balance_share(balance_share)
        self.descriptors = descriptors if num_experts is not None else None
        self.raw_norm = raw_norm
        state = None
        if weights is not None and not from_clip:
            state = read_encoder_state(weights, name=name, in_chans=in_chans, model_args=model_args or {})
            self._check_state(state)
        if state is not None and not state.has_experts:
            self._load(state, weights_resize)
        if num_experts is not None:
            for layer in self._layers(layers):
                block = self.model.blocks[layer - 1]
                block.mlp = SparseMoE(
                    block.mlp,
                    dim=self.model.embed_dim,
                    num_experts=num_experts,
                    top_k=top_k,
                    gate=gate,
                    num_descriptors=NUM_DESCRIPTORS if descriptors is not None else 0,
                    init_std=router_init_std,
                    uncounted=0 if count_prefix else self.model.num_prefix_tokens,
                    implementation=implementation,
                )
        if state is not None and state.has_experts:
            self._load(state, weights_resize)
        self._freeze(freeze)

    def _layers(self, layers: Sequence[int] | Literal["all"]) -> list[int]:
        depth = len(self.model.blocks)
        chosen = list(range(1, depth + 1)) if layers == "all" else sorted({int(layer) for layer in layers})
        if not chosen or chosen[0] < 1 or chosen[-1] > depth:
            raise UserError(f"the encoder has {depth} blocks, so layers={chosen} cannot get experts (counted from 1)")
        return chosen

    def _check_state(self, state: EncoderState) -> None:
        if state.has_experts and self.num_experts is None:
            raise UserError(f"'{state.source}' holds a mixture of experts, but num_experts=None asks for a dense model")

    def _load(self, state: EncoderState, resize: WeightResize) -> None:
        fitted = fit_state(state.model, self.model, resize=resize, source=state.source)
        copy_state(self.model, fitted, state.source)
        if self.descriptors is not None and state.descriptors:
            copy_state(self.descriptors, state.descriptors, state.source)

    def _freeze(self, freeze: bool) -> None:
        """Fix all, or what no loss can reach, for which a group of processes would wait."""
        self.freeze = freeze
        if freeze:
            self.requires_grad_(False)
            self.eval()
            return
        self.model.blocks[max(self.taps) :].requires_grad_(False)
        if not self.final_norm:
            self.model.norm.requires_grad_(False)
        for mixture in self.mixtures.values():
            if mixture.router.is_constant and self.balance_weight == 0:
                mixture.router.requires_grad_(False)

    @property
    def mixtures(self) -> dict[str, SparseMoE]:
        """The layers with experts by the name of their block, ``block1``, ..."""
        blocks = {f"block{number}": block.mlp for number, block in enumerate(self.model.blocks, 1)}
        return {name: mlp for name, mlp in blocks.items() if isinstance(mlp, SparseMoE)}

    def count_parameters(self) -> tuple[int, int]:
        """Return the number of all parameters, and of those that one token meets."""
        total = sum(parameter.numel() for parameter in self.parameters())
        idle = sum(mixture.count_idle() for mixture in self.mixtures.values())
        return total, total - idle

    def forward(self, x: Tensor, *, raw: Tensor | None = None, valid: Tensor | None = None) -> dict[str, Tensor]:
        """Encode images.

        Args:
            x: (N, in_chans, H, W) normalised; H and W multiples of the patch size.
            raw: (N, C, H, W) the same images as rasters, for the descriptors; None = `raw_norm` is undone on `x`.
            valid: (N, H, W) bool, False = no data or padding; None = all of `raw`, or without it what is not exactly 0
                in `x`, as our meta-architectures leave pixels without data.

        Returns:
            One (N, C, H/p, W/p) map a tap.

        Raises:
            UserError: descriptors are computed, but there is neither `raw` nor a `raw_norm`.
        """
        return self.encode(x, raw=raw, valid=valid)[0]

    def encode(
        self, x: Tensor, *, raw: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encode images.

        Args:
            x: see `forward`.
            raw: see there.
            valid: see there.

        Returns:
            The maps of `forward`, and a tap's class token (N, C); no tokens from a model that has none.
        """
        grid = (x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.needs_graph):
            outputs = self._run(x, self._describe(x, raw, valid))
        prefix = self.model.num_prefix_tokens
        maps = {name: tokens[:, prefix:].transpose(1, 2).unflatten(2, grid) for name, tokens in outputs.items()}
        return maps, {name: tokens[:, 0] for name, tokens in outputs.items()} if self.has_class_token else {}

    def _describe(self, x: Tensor, raw: Tensor | None, valid: Tensor | None) -> Tensor | None:
        if self.descriptors is None:
            return None
        if raw is None:
            if self.raw_norm is None:
                raise UserError(
                    "the encoder's descriptors need the raster itself: set raw_norm of the encoder to the "
                    "normalisation that its images come with"
                )
            valid = (x != 0).any(dim=1) if valid is None else valid
            raw = x.float() * self.raw_norm.std + self.raw_norm.mean
        return self.descriptors(raw, valid)

    def _run(self, x: Tensor, described: Tensor | None) -> dict[str, Tensor]:
        """Run the blocks up to the deepest tap; the tokens (N, L, C) of each.

        timm's own loop gives blocks nothing but tokens; the routers need to know which images they belong to, also when
        a block is run again in the backward pass.
        """
        model = self.model
        tokens = model._pos_embed(model.patch_embed(x))
        tokens, rope = tokens if isinstance(tokens, tuple) else (tokens, None)
        if isinstance(model, VisionTransformer):
            tokens = model.patch_drop(tokens)
        tokens = model.norm_pre(tokens)
        outputs: dict[str, Tensor] = {}
        for index in range(max(self.taps)):
            own = rope[index] if rope is not None and getattr(model, "rope_mixed", False) else rope
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(self._run_block, index, tokens, described, own, use_reentrant=False)
            else:
                tokens = self._run_block(index, tokens, described, own)
            outputs[f"block{index + 1}"] = tokens
        return {name: model.norm(outputs[name]) if self.final_norm else outputs[name] for name in self.feature_names}

    def _run_block(self, index: int, tokens: Tensor, described: Tensor | None, rope: Tensor | None) -> Tensor:
        block = self.model.blocks[index]
        if isinstance(block.mlp, SparseMoE):
            block.mlp.descriptors = described
        return block(tokens) if rope is None else block(tokens, rope=rope)

    def expert_statistics(self) -> dict[str, ExpertStatistics]:
        """What each layer with experts did with the last batch: a by-product of the forward pass."""
        return {name: mlp.last for name, mlp in self.mixtures.items() if mlp.last is not None}

    def balance_loss(self) -> Tensor:
        """Balance loss of the last batch, mean over the layers with experts, without lambda, 0-d.

        Raises:
            ValueError: there are no experts, or there was no batch yet.
        """
        statistics = list(self.expert_statistics().values())
        if not statistics:
            raise ValueError("the encoder has no experts, or has not seen a batch yet")
        counts = torch.stack([item.counts for item in statistics])
        if self.sync_statistics and world_size() > 1:
            dist.all_reduce(counts)
        shares = share_of(counts, top_k=statistics[0].index.shape[-1], kind=self.balance_share)
        terms = [load_balance(share, item.probabilities) for share, item in zip(shares, statistics, strict=True)]
        return torch.stack(terms).mean()

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """``{"loss_moe_balance": lambda * balance_loss()}`` of the last batch in training, else nothing."""
        if not self.training or not self.mixtures or self.freeze or self.balance_weight == 0:
            return {}
        return {"loss_moe_balance": self.balance_weight * self.balance_loss()}
