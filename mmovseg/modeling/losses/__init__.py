"""Losses as plain functions."""

from mmovseg.modeling.losses.contrastive import patch_info_nce, patch_regression
from mmovseg.modeling.losses.segmentation import IgnoredPixels, pixel_binary_cross_entropy, pixel_cross_entropy

__all__ = ["IgnoredPixels", "patch_info_nce", "patch_regression", "pixel_binary_cross_entropy", "pixel_cross_entropy"]
