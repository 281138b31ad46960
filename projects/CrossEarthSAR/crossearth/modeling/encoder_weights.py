"""Weights of dense transformers and of mixtures of experts, brought to the patches and image size of an encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor, nn

from mmovseg.checkpoint.load import read_state
from mmovseg.errors import UserError
from mmovseg.modeling.backbone.timm_encoder import create_timm

WeightResize = Literal["release", "timm"]

FOLDED = "folded:"
_FILTERS = "patch_embed.proj.weight"
_POSITIONS = "pos_embed"
_EXPERTS = ".mlp.experts.w1"
_MODEL, _DESCRIPTORS = "model.", "descriptors."


@dataclass
class EncoderState:
    """What a file says about an encoder.

    source: for reports.
    model: tensors by the names of the timm model.
    descriptors: constants of the descriptors, empty where the file has none.
    has_experts: whether `model` is a mixture of experts, not a dense one.
    """

    source: str
    model: dict[str, Tensor]
    descriptors: dict[str, Tensor]
    has_experts: bool


def read_encoder_state(weights: str, *, name: str, in_chans: int, model_args: Mapping[str, Any]) -> EncoderState:
    """Read the weights that an encoder is to start from.

    Args:
        weights: ``timm`` (downloaded, with the patches they were trained with), a file, or ``folded:<file>``, whose
            filters are folded or repeated to `in_chans`. A file may hold a timm model, an encoder, or a whole training
            run with one encoder in it.
        name: timm model name.
        in_chans: channels of the encoder.
        model_args: of the encoder.

    Raises:
        UserError: unreadable, no encoder in it, or more than one.
    """
    if weights == "timm":
        native = {key: value for key, value in model_args.items() if key != "patch_size"}
        state = create_timm(name, True, in_chans, None, native).state_dict()
        return EncoderState(f"timm model '{name}'", state, {}, False)
    path = weights.removeprefix(FOLDED)
    state, _ = read_state(path)
    start = _find_model(state, path)
    model = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
    if weights.startswith(FOLDED):
        model[_FILTERS] = _fold(model[_FILTERS], in_chans, path)
    side = start.removesuffix(_MODEL) + _DESCRIPTORS
    constants = {key.removeprefix(side): value for key, value in state.items() if start and key.startswith(side)}
    return EncoderState(str(path), model, constants, any(key.endswith(_EXPERTS) for key in model))


def fit_state(state: Mapping[str, Tensor], model: nn.Module, *, resize: WeightResize, source: str) -> dict[str, Tensor]:
    """Bring filters and positions to the patch size and grid of `model`; the rest stays as it is.

    ``release`` is what Rein and Earth-Adapter do offline: plain bicubic interpolation of both, without a correction of
    the filters' scale. ``timm`` solves for filters that give equal features on resized patches, and smooths positions
    that shrink.

    Args:
        state: of a timm model.
        model: the one that it is for.
        resize: see above.
        source: of the state, for errors.

    Raises:
        UserError: positions that belong to no square grid.
    """
    state = dict(state)
    size = tuple(int(side) for side in model.patch_embed.proj.weight.shape[-2:])
    if _FILTERS in state and tuple(state[_FILTERS].shape[-2:]) != size:
        filters = state[_FILTERS].float()
        state[_FILTERS] = (
            resample_patch_embed(filters, list(size))
            if resize == "timm"
            else F.interpolate(filters, size=size, mode="bicubic", align_corners=False)
        )
    if _POSITIONS in state and getattr(model, _POSITIONS, None) is not None:
        state[_POSITIONS] = _fit_positions(state[_POSITIONS], model, resize, source)
    return state


def _fit_positions(table: Tensor, model: nn.Module, resize: WeightResize, source: str) -> Tensor:
    grid = tuple(int(side) for side in model.patch_embed.grid_size)
    prefix = model.pos_embed.shape[1] - grid[0] * grid[1]
    side = math.isqrt(table.shape[1] - prefix)
    if side * side != table.shape[1] - prefix:
        raise UserError(f"'{source}' has positions of {table.shape[1] - prefix} patches, which form no square grid")
    if (side, side) == grid:
        return table
    if resize == "timm":
        return resample_abs_pos_embed(table, new_size=list(grid), old_size=[side, side], num_prefix_tokens=prefix)
    patches = table[:, prefix:].float().transpose(1, 2).unflatten(2, (side, side))
    patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    return torch.cat([table[:, :prefix].float(), patches], dim=1)


def _find_model(state: Mapping[str, Tensor], path: str | Path) -> str:
    """Return what stands before the names of the timm model: "", ``model.`` or ``<part>.model.``."""
    starts = sorted(key.removesuffix(_FILTERS) for key in state if key.endswith(_FILTERS))
    starts = [start for start in starts if not start or start.endswith(_MODEL)]
    if not starts:
        raise UserError(f"'{path}' holds no vision transformer: no tensor is called '{_FILTERS}'")
    if len(starts) > 1:
        parts = ", ".join(start.removesuffix(f".{_MODEL}") for start in starts)
        raise UserError(f"'{path}' holds several encoders ({parts}); write one to a file with tools/export_weights.py")
    return starts[0]


def _fold(filters: Tensor, in_chans: int, path: str) -> Tensor:
    try:
        return adapt_input_conv(in_chans, filters)
    except NotImplementedError as error:
        raise UserError(
            f"the filters of '{path}' read {filters.shape[1]} channels and cannot be folded to {in_chans}"
        ) from error
