"""Losses as plain functions."""

from mmovseg.modeling.losses.contrastive import OTHER_BATCH, info_nce, patch_regression
from mmovseg.modeling.losses.lovasz import lovasz_softmax
from mmovseg.modeling.losses.segmentation import IgnoredPixels, pixel_binary_cross_entropy, pixel_cross_entropy

__all__ = [
    "OTHER_BATCH",
    "IgnoredPixels",
    "info_nce",
    "lovasz_softmax",
    "patch_regression",
    "pixel_binary_cross_entropy",
    "pixel_cross_entropy",
]
