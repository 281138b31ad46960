"""Any timm vision transformer as a dense encoder.

The paper (Sec. 3.2.2, 4.1.2) uses DINO v1 ViT-B/16 for RGB and for SAR, and DINOv3 ViT-L for the large variant; the
release uses a ViT-B/8. All of them, and every other timm model with `forward_intermediates`, fit here by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from mmovseg.checkpoint.load import load_weights, read_state
from mmovseg.checkpoint.rules import ASIDE
from mmovseg.errors import UserError
from mmovseg.modeling.backbone.positions import DinoV1Transformer

PositionResize = Literal["timm", "dino_v1"]

_FILTERS = "patch_embed.proj.weight"


class TimmEncoder(Backbone):
    """Frozen or trainable timm ViT that hands out the normalised patch tokens of chosen blocks.

    Args:
        name: timm model name, for example ``vit_base_patch16_224.dino``.
        taps: 1-based block numbers to return, for example ``(4, 8, 12)`` (Sec. 3.2.2).
        weights: ``"timm"`` downloads the pretrained weights that belong to `name`; a path reads our own safetensors;
            ``"folded:<path>"`` reads such a file of an RGB encoder and folds or repeats its filters to `in_chans`;
            ``"clip:<path>"`` starts from the visual tower of one of our CLIP checkpoints; None keeps the random start.
        in_chans: input channels. timm folds or repeats pretrained RGB filters for another number.
        image_size: training size in pixels (side), None for the model's own. Other sizes work too: positions are
            resampled.
        model_args: further arguments of the timm constructor (width, depth ... of a small model).
        local_last_block: let every token of the last block attend to itself alone (value path). The last attention
            mixes the scene into every token; without it, tokens of a CLIP tower say what is here, not what is around.
        position_resize: how a learned position table is brought to another grid: ``timm`` (antialiased bicubic) or
            ``dino_v1`` (`resize_positions_dino_v1`; what DINO and the MM-OVSeg release do).
        keep_rope_periods: store the periods of the rotary positions with the weights. Published DINOv3 files hold them
            rounded to bfloat16, timm computes them exactly; equal features need the stored ones.
        freeze: keep the weights fixed; the encoder then always runs in eval mode, and without a graph unless something
            inside it, such as an adapter, still trains.
        checkpointing: keep only what enters each block for the backward pass, and run the blocks again there: less
            memory for about a third more time, equal gradients.

    Raises:
        UserError: the name is unknown, the weights cannot be had, a tap is beyond the depth, or the model has no such
            positions.
    """

    def __init__(
        self,
        name: str,
        *,
        taps: Sequence[int],
        weights: str | None = None,
        in_chans: int = 3,
        image_size: int | None = None,
        model_args: dict[str, Any] | None = None,
        local_last_block: bool = False,
        position_resize: PositionResize = "timm",
        keep_rope_periods: bool = False,
        freeze: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.model = create_timm(name, weights == "timm", in_chans, image_size, dict(model_args or {}))
        if not hasattr(self.model, "blocks"):
            raise UserError(f"timm model '{name}' is no vision transformer: it has no row of blocks to read")
        if position_resize != "timm":
            _use_dino_v1_positions(self.model, name, position_resize)
        if keep_rope_periods:
            _store_rope_periods(self.model, name)
        if local_last_block:
            self.model.blocks[-1].attn = _ValueOnly(self.model.blocks[-1].attn)
        depth = len(self.model.blocks)
        if not taps or max(taps) > depth or min(taps) < 1:
            raise UserError(
                f"encoder '{name}' has {depth} blocks, so taps={tuple(taps)} cannot be read (counted from 1)"
            )
        self.taps = tuple(int(tap) for tap in taps)
        self.weights = weights
        self.freeze = freeze
        patch = self.model.patch_embed.patch_size
        self.patch_size = int(patch[0] if isinstance(patch, (tuple, list)) else patch)
        self.in_chans = in_chans
        if checkpointing:
            self.model.set_grad_checkpointing()
        if weights is not None and weights.startswith("clip:"):
            _load_clip_tower(self.model, weights.removeprefix("clip:"), in_chans)
        elif weights is not None and weights.startswith("folded:"):
            _load_folded(self.model, weights.removeprefix("folded:"), in_chans)
        elif weights not in (None, "timm"):
            load_weights(self.model, str(weights))
        if freeze:
            self.requires_grad_(False)
            self.eval()

    @property
    def size_divisibility(self) -> int:
        return self.patch_size

    @property
    def needs_graph(self) -> bool:
        """Whether anything in the encoder trains."""
        return not self.freeze or any(parameter.requires_grad for parameter in self.parameters())

    @property
    def feature_names(self) -> list[str]:
        """Names of the returned maps, in tap order: ``block4``, ..."""
        return [f"block{tap}" for tap in self.taps]

    def output_shape(self) -> dict[str, ShapeSpec]:
        width = self.model.embed_dim
        return {name: ShapeSpec(channels=width, stride=self.patch_size) for name in self.feature_names}

    def train(self, mode: bool = True) -> TimmEncoder:
        """Set the mode; a frozen encoder stays in eval mode, since dropout would change its features."""
        return super().train(mode and not self.freeze)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Encode normalised images.

        Args:
            x: (N, in_chans, H, W) normalised; H and W multiples of the patch size.

        Returns:
            One (N, C, H/p, W/p) map a tap, each through the model's final norm.
        """
        return self.encode(x)[0]

    @property
    def has_class_token(self) -> bool:
        """Whether `encode` gives class tokens."""
        return getattr(self.model, "cls_token", None) is not None

    def encode(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encode normalised images.

        Args:
            x: as for `forward`.

        Returns:
            The maps of `forward`, and a tap's class token (N, C) after the final norm; no tokens from a model that has
            none.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.needs_graph):
            outputs = self.model.forward_intermediates(
                x,
                indices=[tap - 1 for tap in self.taps],
                return_prefix_tokens=self.has_class_token,
                norm=True,
                stop_early=True,
                output_fmt="NLC",
                intermediates_only=True,
            )
        grid = (x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size)
        named = dict(zip(self.feature_names, outputs, strict=True))
        tokens = {name: output[0] for name, output in named.items()} if self.has_class_token else named
        maps = {name: patches.transpose(1, 2).unflatten(2, grid) for name, patches in tokens.items()}  # views
        return maps, {name: output[1][:, 0] for name, output in named.items()} if self.has_class_token else {}


class _ValueOnly(nn.Module):
    """Stands in for timm's attention, with its weights under the same names: proj(value(x)), no mixing of tokens."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(N, L, C) -> (N, L, C). The masks that timm's blocks hand over mean nothing without attention."""
        start = 2 * x.shape[-1]
        bias = None if self.qkv.bias is None else self.qkv.bias[start:]
        return self.proj(F.linear(x, self.qkv.weight[start:], bias))


def create_timm(
    name: str, pretrained: bool, in_chans: int, image_size: int | None, model_args: dict[str, Any]
) -> nn.Module:
    """Return a timm model without a classifier that takes any image size.

    Args:
        name: timm model name.
        pretrained: download its weights.
        in_chans: input channels.
        image_size: training size in pixels, None for the model's own.
        model_args: further arguments of the timm constructor.

    Raises:
        UserError: the name is unknown, the model is no transformer or does not know an argument, or the weights cannot
            be had.
    """
    if not timm.is_model(name.split(".")[0]):
        near = ", ".join(timm.list_models(f"*{name.split('.')[0][:12]}*")[:3]) or "see timm.list_models()"
        raise UserError(f"timm has no model '{name}'; similar: {near}")
    if image_size is not None:
        model_args = {**model_args, "img_size": image_size}
    args = dict(in_chans=in_chans, num_classes=0, dynamic_img_size=True, **model_args)
    try:
        return timm.create_model(name, pretrained=pretrained, **args)
    except TypeError as error:
        raise UserError(f"timm model '{name}' cannot be built as a vision transformer: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        source = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or f"timm/{name}"
        raise UserError(
            f"the pretrained weights of timm model '{name}' cannot be downloaded ({type(error).__name__}); put "
            f"'model.safetensors' of the hub repository '{source}' into the Hugging Face cache, or give a local "
            f"file as `weights=<path>`"
        ) from error


def _use_dino_v1_positions(model: nn.Module, name: str, position_resize: str) -> None:
    if position_resize != "dino_v1":
        raise UserError(f"position_resize must be timm or dino_v1, got '{position_resize}'")
    plain = type(model) is VisionTransformer and model.pos_embed is not None
    if not plain or model.num_prefix_tokens != 1 or model.no_embed_class:
        raise UserError(
            f"position_resize='dino_v1' needs a plain vision transformer with a class token, encoder '{name}' is none"
        )
    model.__class__ = DinoV1Transformer  # the same weights, another `_pos_embed`


def _store_rope_periods(model: nn.Module, name: str) -> None:
    rope = getattr(model, "rope", None)
    if getattr(rope, "periods", None) is None:
        raise UserError(f"keep_rope_periods needs rotary positions with periods, encoder '{name}' has none")
    rope.register_buffer("periods", rope.periods, persistent=True)  # type: ignore[union-attr]


def _load_clip_tower(model: nn.Module, path: str, in_chans: int) -> None:
    """Copy CLIP's visual tower; RGB filters are folded or repeated for other channel counts, as timm does."""
    state, _ = read_state(path)
    visual = {key: value.float() for key, value in state.items() if key.startswith("visual.")}
    if not visual:
        raise UserError(f"'{path}' holds no CLIP visual tower (no key starts with 'visual.')")
    converted = checkpoint_filter_fn(visual, model)
    wanted = {key: value for key, value in converted.items() if not key.startswith("head.")}
    _load_adapted(model, wanted, in_chans, f"the CLIP tower in '{path}'")


def _load_folded(model: nn.Module, path: str, in_chans: int) -> None:
    """Read our own file of an encoder with three channels into one with `in_chans`."""
    state, _ = read_state(path)
    _load_adapted(
        model, {key: value for key, value in state.items() if not key.startswith(ASIDE)}, in_chans, f"'{path}'"
    )


def _load_adapted(model: nn.Module, state: dict[str, Tensor], in_chans: int, what: str) -> None:
    """Load with the filters of the patch embedding folded or repeated to `in_chans`, as timm does."""
    if _FILTERS not in state:
        raise UserError(f"{what} does not fit this encoder: it has no '{_FILTERS}'")
    try:
        model.load_state_dict({**state, _FILTERS: adapt_input_conv(in_chans, state[_FILTERS])}, strict=True)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{what} does not fit this encoder: {reason}") from error
