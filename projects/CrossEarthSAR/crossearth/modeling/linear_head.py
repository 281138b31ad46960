"""The control: scores as a linear function of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.errors import UserError
from mmovseg.layers.conv import resize
from mmovseg.modeling.losses import pixel_cross_entropy


@SEM_SEG_HEADS_REGISTRY.register()
class LinearHead(nn.Module):
    """Batch norm and a 1x1 convolution: what the features say without any help (as DINOv2's linear segmentation).

    Args:
        input_shape: of the backbone's maps.
        num_classes: K.
        in_features: maps that are read side by side in channels, all of one stride; None = the last alone.

    Raises:
        UserError: a map that the backbone does not have, or maps of several strides.
    """

    ignore_value = IGNORE_LABEL  # what Detectron2's meta-architectures pad labels with

    @configurable
    def __init__(
        self, input_shape: Mapping[str, ShapeSpec], *, num_classes: int, in_features: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_features) if in_features is not None else (list(input_shape)[-1],)
        unknown = [name for name in self.in_features if name not in input_shape]
        if unknown:
            raise UserError(f"the linear head wants the map '{unknown[0]}'; the backbone has: {', '.join(input_shape)}")
        strides = {int(input_shape[name].stride) for name in self.in_features}
        if len(strides) != 1:
            found = ", ".join(str(stride) for stride in sorted(strides)) or "none"
            raise UserError(f"the linear head reads maps of one stride, got: {found}")
        self.stride = strides.pop()
        channels = sum(int(input_shape[name].channels) for name in self.in_features)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)  # nearly equal scores at the start
        nn.init.zeros_(self.classifier.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Translate a yacs config of stock Detectron2."""
        node = cfg.MODEL.SEM_SEG_HEAD
        return {"input_shape": input_shape, "num_classes": node.NUM_CLASSES, "in_features": node.IN_FEATURES or None}

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Train or predict, as Detectron2's semantic heads do.

        Args:
            features: the backbone's maps, (N, C, h, w) each.
            targets: (N, H, W) int64 in 0..K-1, 255 = ignore; H, W as the maps cover. Only in training.

        Returns:
            Training: None and ``loss_sem_seg``. Otherwise (N, K, H, W) float32 logits and no losses.
        """
        logits = self.classifier(self.norm(torch.cat([features[name] for name in self.in_features], dim=1)))
        if self.training:
            assert targets is not None
            return None, {"loss_sem_seg": pixel_cross_entropy(logits, targets)}
        return resize(logits.float(), (logits.shape[2] * self.stride, logits.shape[3] * self.stride)), {}
