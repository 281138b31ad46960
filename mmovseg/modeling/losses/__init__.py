"""Losses as plain functions."""

from mmovseg.modeling.losses.contrastive import patch_info_nce, patch_regression
from mmovseg.modeling.losses.segmentation import pixel_cross_entropy

__all__ = ["patch_info_nce", "patch_regression", "pixel_cross_entropy"]
