"""Image encoders as detectron2 backbones."""

from mmovseg.modeling.backbone.timm_encoder import TimmEncoder

__all__ = ["TimmEncoder"]
