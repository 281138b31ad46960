"""Any plain timm vision transformer as an encoder over mask units, so that the method is not tied to HiViT.

Shapes: N rows, V visible units, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.modeling.backbone.timm_encoder import create_timm
from mmovseg.projects.codemae.modeling.blocks import UnitEmbedding, sincos_positions
from mmovseg.projects.codemae.modeling.encoder import CoarsePool, MaskedEncoder, Sensor, VisibleFeatures


class MaskedViT(MaskedEncoder):
    """A plain vision transformer with one patch embedding a sensor and masking before its first block.

    A unit is a patch, and the only level is the output of the last block. Behind the blocks is the model's final norm.

    Args:
        name: timm model name of a plain `VisionTransformer`, for example ``vit_base_patch16_224``.
        model_args: further arguments of the timm constructor (width, depth ... of a small model).
        in_chans: sensor -> channels of its images; one patch embedding each.
        sensor: whose embedding `forward` uses by default; None = the only one.
        image_size: side of the square images in pixels that the positions are made for; others are interpolated.
        class_token: keep the model's class token. Nothing here reads it: the losses and the probes look at patches. So
            by default there is none, and blocks are spared one token; weights that were trained with it, as most
            published ones, give other features without it, so keep it for those.
        drop_path: chance of dropping a branch in the last block; rises linearly from 0.
        out_features: maps of `forward`: ``p<patch>``, two pooled ones, ``tokens`` (the same values as ``p<patch>``).
            None = ``p<patch>``.
        coarse_pool: how pooled levels come out of the only one.
        checkpointing: recompute the blocks in the backward pass instead of keeping their activations.
        weights: ``"timm"`` downloads the pretrained weights that belong to `name`, filters folded or repeated to the
            channels of each sensor; a path is a file of an encoder or of a whole pretraining run, see `load_encoder`;
            None = random start, with fixed sine-cosine values as the first positions.
        freeze: keep the weights fixed; the encoder then always runs in eval mode and without a graph.

    Raises:
        UserError: the model is no plain vision transformer, or see `MaskedEncoder`.
    """

    def __init__(
        self,
        name: str,
        *,
        model_args: dict[str, Any] | None = None,
        in_chans: Mapping[Sensor, int] | None = None,
        sensor: Sensor | None = None,
        image_size: int = 224,
        class_token: bool = False,
        drop_path: float = 0.0,
        out_features: Sequence[str] | None = None,
        coarse_pool: CoarsePool = "average",
        checkpointing: bool = False,
        weights: str | None = None,
        freeze: bool = False,
    ) -> None:
        super().__init__()
        channels = dict(in_chans) if in_chans is not None else {"optical": 3, "sar": 3}
        if not channels or not set(channels) <= {"optical", "sar"}:
            raise UserError(f"in_chans of MaskedViT must name optical, sar or both, got {dict(channels)}")
        model = create_timm(
            name, weights == "timm", 3, image_size, {**(model_args or {}), "drop_path_rate": float(drop_path)}
        )
        _check_plain(model, name)
        self.dim, self.unit_size = model.embed_dim, model.patch_embed.patch_size[0]
        self.grid = tuple(model.patch_embed.grid_size)
        self.level_dims = {f"p{self.unit_size}": (1, self.dim)}
        self.embed = nn.ModuleDict({key: _embedding(model, count) for key, count in channels.items()})
        self.cls_token, self.positions = _take_positions(model, class_token, self.grid, weights == "timm")
        self.norm_pre, self.blocks = model.norm_pre, nn.ModuleList(model.blocks)
        # models that were trained to pool first have their norm behind it; token by token it does the same
        self.norm = model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm
        self.main_blocks = range(len(self.blocks))
        self._finish(
            sensor=sensor,
            out_features=out_features,
            coarse_pool=coarse_pool,
            checkpointing=checkpointing,
            weights=None if weights == "timm" else weights,
            freeze=freeze,
        )

    def _run(self, units: Tensor, positions: Tensor, middle_block: int | None, with_levels: bool) -> VisibleFeatures:
        x, middle = units.squeeze(2) + positions, None
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        first = 0 if self.cls_token is None else 1
        x = self.norm_pre(x)
        for index in self.main_blocks:
            x = self._run_block(index, x)
            middle = x[:, first:] if index == middle_block else middle
        x = self.norm(x)[:, first:]
        return VisibleFeatures({f"p{self.unit_size}": x.unsqueeze(2)} if with_levels else {}, x, middle)


def _check_plain(model: nn.Module, name: str) -> None:
    plain = type(model) is VisionTransformer and model.pos_embed is not None and model.num_reg_tokens == 0
    plain = plain and model.attn_pool is None and isinstance(model.patch_embed.norm, nn.Identity)
    if not plain or len(set(model.patch_embed.patch_size)) != 1:
        raise UserError(
            f"MaskedViT needs a plain vision transformer of timm with a learned position for every patch and no "
            f"registers, '{name}' is none"
        )


def _embedding(model: VisionTransformer, in_chans: int) -> UnitEmbedding:
    """Return the model's patch embedding for images of `in_chans` channels."""
    old = model.patch_embed.proj
    embedding = UnitEmbedding(
        in_chans, model.embed_dim, unit_size=old.kernel_size[0], side=1, norm_eps=None, bias=old.bias is not None
    )
    state = {key: value.detach().clone() for key, value in old.state_dict().items()}
    embedding.proj.load_state_dict({**state, "weight": adapt_input_conv(in_chans, state["weight"])})
    return embedding


def _take_positions(
    model: VisionTransformer, class_token: bool, grid: tuple[int, int], pretrained: bool
) -> tuple[nn.Parameter | None, nn.Parameter]:
    """Return the class token, its own position added, and the positions of the patches."""
    table = model.pos_embed.detach()
    count = grid[0] * grid[1]
    patches = table[:, -count:].clone() if pretrained else sincos_positions(grid, model.embed_dim)
    if not class_token:
        return None, nn.Parameter(patches)
    if model.cls_token is None:
        raise UserError("class_token=True of MaskedViT needs a model that has one")
    token = model.cls_token.detach()
    own = table[:, :1] if table.shape[1] > count else torch.zeros_like(token)
    return nn.Parameter(token + own), nn.Parameter(patches)
