"""Segmentation of 512-pixel tiles by CrossEarth-SAR-L under Mask2Former, without data, classes and recipe.

S and B: another encoder of `encoders.py`. The control without experts: model.encoder.num_experts=null.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.crossearth.modeling.segmentor import SARSegmentor

model = L(SARSegmentor)(
    encoder=get_config("projects/CrossEarthSAR/configs/common/encoders.py").moe_l,
    vocabulary=None,  # a leaf says
    # 8-bit amplitude, one band three times; ImageNet's constants, which DINOv2 was trained with.
    sar_norm=L(PixelNorm)(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    head=get_config("projects/CrossEarthSAR/configs/common/head.py").mask2former,
    # As Rein; a tile of 512 pixels is one window.
    window=512,
    window_stride=341,
)
