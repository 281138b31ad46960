"""Fusion of optical and SAR features with each other and with text."""

from mmovseg.modeling.fusion.dense import DenseFusion
from mmovseg.modeling.fusion.dual_encoder import DualEncoderFusionHead

__all__ = ["DenseFusion", "DualEncoderFusionHead"]
