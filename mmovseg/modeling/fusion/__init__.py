"""Fusion of optical and SAR features with each other and with text."""

from mmovseg.modeling.fusion.dense import DenseFusion
from mmovseg.modeling.fusion.dual_encoder import DualEncoderFusionHead, SARText
from mmovseg.modeling.fusion.heads import HEADS, FusionHead, build_head
from mmovseg.modeling.fusion.released import CostAggregationHead

__all__ = [
    "HEADS",
    "CostAggregationHead",
    "DenseFusion",
    "DualEncoderFusionHead",
    "FusionHead",
    "SARText",
    "build_head",
]
