"""Heads by name, since configs and yacs files choose one as text.

A head is called as ``head(text, clip, dense, valid, grid=..., explain=..., clip_sees=..., dense_see=...)`` and brings
what is its own: `loss`, what `to_scores` makes of logits, `strides`, `resize_once`, whether scores go straight to the
raster if nothing was padded, and `padding_is_data`, whether encoders' answers at padded pixels count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.layers import ShapeSpec

from mmovseg.errors import UserError
from mmovseg.modeling.fusion.dual_encoder import DualEncoderFusionHead
from mmovseg.modeling.fusion.released import CostAggregationHead

FusionHead = DualEncoderFusionHead | CostAggregationHead
HEADS: dict[str, type[DualEncoderFusionHead] | type[CostAggregationHead]] = {
    "paper": DualEncoderFusionHead,
    "released": CostAggregationHead,
}


def build_head(
    arguments: Mapping[str, Any],
    dense_shapes: Mapping[str, ShapeSpec] | None,
    clip_shapes: Mapping[str, ShapeSpec],
    *,
    embed_dim: int,
    modalities: Sequence[str],
    use_clip_guidance: bool,
) -> FusionHead:
    """Build the head that ``arguments["name"]`` names (default ``paper``) with the other arguments.

    Raises:
        UserError: there is no head of that name, or it has no such argument.
    """
    options = dict(arguments)
    name = str(options.pop("name", "paper"))
    if name not in HEADS:
        raise UserError(f"there is no head '{name}'; there are: {', '.join(HEADS)}")
    try:
        return HEADS[name](
            dense_shapes,
            clip_shapes,
            embed_dim=embed_dim,
            modalities=modalities,
            use_clip_guidance=use_clip_guidance,
            **options,
        )
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise UserError(f"head '{name}' {str(error).split('__init__() ')[-1]}") from error
