"""Mask2Former as a Detectron2 semantic head over the maps of any backbone.

Source: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022
(https://arxiv.org/abs/2112.01527); sizes and loss weights of its public code, pyramid as in the Rein release.

Shapes: N images, C channels, Q queries, K classes; h, w is the grid of a map, H, W the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.errors import UserError
from mmovseg.layers.conv import resize
from mmovseg.modeling.losses.segmentation import IgnoredPixels
from mmovseg.projects.crossearth.losses.masks import MaskLoss

if TYPE_CHECKING:
    from mmovseg.projects.crossearth.modeling.mask_decoder import MaskDecoder

_LEVELS = 4
_GROUPS = 32  # of the norms in the pixel decoder


@SEM_SEG_HEADS_REGISTRY.register()
class Mask2FormerHead(nn.Module):
    """Masks and classes from queries over four maps, fine to coarse.

    The maps of a plain vision transformer all have one stride; `scales` then makes a pyramid of them without any
    parameter: with the default, strides 4, 8, 16 and 32 from a patch of 16. The defaults are the published sizes.

    Args:
        input_shape: of the backbone's maps.
        num_classes: K.
        in_features: names of the four maps; a map may be named twice. None = all of the backbone's.
        scales: factor on the sides of each map; None = the maps are a pyramid already, fine to coarse.
        dim: channels inside, a multiple of 32.
        num_queries, pixel_layers, decoder_layers, num_heads, pixel_ffn_dim, decoder_ffn_dim, dropout: see
            `MaskDecoder`.
        class_weight, mask_weight, dice_weight, no_object_weight, num_points, oversample_ratio, importance_ratio,
            ignored_pixels: see `MaskLoss`.

    Raises:
        UserError: the maps are not four, do not fit the scales, or a size does not divide.
    """

    ignore_value = IGNORE_LABEL  # what Detectron2's meta-architectures pad labels with

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        in_features: Sequence[str] | None = None,
        scales: Sequence[float] | None = (4, 2, 1, 0.5),
        dim: int = 256,
        num_queries: int = 100,
        pixel_layers: int = 6,
        decoder_layers: int = 9,
        num_heads: int = 8,
        pixel_ffn_dim: int = 1024,
        decoder_ffn_dim: int = 2048,
        dropout: float = 0.0,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
        ignored_pixels: IgnoredPixels = "exclude",
    ) -> None:
        super().__init__()
        from mmovseg.projects.crossearth.modeling.mask_decoder import MaskDecoder  # takes seconds to import

        self.in_features = tuple(in_features) if in_features is not None else tuple(input_shape)
        self.scales = tuple(float(scale) for scale in scales) if scales is not None else None
        self.stride = _check_levels(input_shape, self.in_features, self.scales)
        if dim % _GROUPS or dim % num_heads:
            raise UserError(
                f"Mask2Former's dim must be a multiple of {_GROUPS} and of num_heads {num_heads}, got {dim}"
            )
        if min(num_queries, decoder_layers) < 1 or pixel_layers < 0:
            raise UserError(
                f"Mask2Former needs at least one query and one decoder layer, got num_queries {num_queries}, "
                f"decoder_layers {decoder_layers}, pixel_layers {pixel_layers}"
            )
        self.decoder: MaskDecoder = MaskDecoder(
            [int(input_shape[name].channels) for name in self.in_features],
            num_classes=num_classes,
            dim=dim,
            num_queries=num_queries,
            pixel_layers=pixel_layers,
            decoder_layers=decoder_layers,
            num_heads=num_heads,
            pixel_ffn_dim=pixel_ffn_dim,
            decoder_ffn_dim=decoder_ffn_dim,
            dropout=dropout,
        )
        self.loss = MaskLoss(
            num_classes,
            class_weight=class_weight,
            mask_weight=mask_weight,
            dice_weight=dice_weight,
            no_object_weight=no_object_weight,
            num_points=num_points,
            oversample_ratio=oversample_ratio,
            importance_ratio=importance_ratio,
            ignored_pixels=ignored_pixels,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Translate a yacs config, see `mmovseg.projects.crossearth.modeling.yacs`."""
        node = cfg.MODEL.SEM_SEG_HEAD
        own = {key.lower(): value for key, value in node.MASK2FORMER.items()}
        return {
            "input_shape": input_shape,
            "num_classes": node.NUM_CLASSES,
            "in_features": node.IN_FEATURES or None,
            **own,
            "scales": own["scales"] or None,
        }

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Train or predict, as Detectron2's semantic heads do.

        Args:
            features: the backbone's maps, (N, C, h, w) each.
            targets: (N, H, W) int64 in 0..K-1, 255 = ignore; H, W as the maps cover. Only in training.

        Returns:
            Training: None and the losses of `MaskLoss`. Otherwise (N, K, H, W) float32 scores and no losses. A score is
            the sum over queries of the probability of the class times that of the pixel lying in the mask: at least 0,
            and not a distribution over classes. The largest wins.
        """
        outputs = self.decoder(self._pyramid(features))
        if self.training:
            assert targets is not None
            return None, self.loss(outputs, targets)
        first = features[self.in_features[0]]
        size = (first.shape[2] * self.stride, first.shape[3] * self.stride)
        classes, masks = outputs[-1]
        return semantic_scores(classes, masks, size), {}

    @staticmethod
    def as_logits(scores: Tensor) -> Tensor:
        """Turn scores (K, H, W) into logarithms of their shares, of which a softmax over classes gives the shares."""
        scores = scores.clamp_min(torch.finfo(scores.dtype).tiny)
        return scores.log() - scores.sum(dim=0).log()

    def _pyramid(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the four maps, fine to coarse."""
        maps = [features[name] for name in self.in_features]
        if self.scales is None:
            return maps
        return [
            resize(x, (_scaled(x.shape[2], scale), _scaled(x.shape[3], scale)))
            for x, scale in zip(maps, self.scales, strict=True)
        ]


def semantic_scores(class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Score classes at every pixel: sum over queries of p(class) times p(pixel in mask).

    The masks of one image at a time are brought to `size`: at 512 x 512 pixels 100 of them take 105 MB.

    Args:
        class_logits: (N, Q, K + 1), the last column "no object".
        mask_logits: (N, Q, h, w), resized before the sigmoid.
        size: of the image in pixels.

    Returns:
        (N, K, H, W) float32, at least 0.
    """
    probabilities = class_logits.float().softmax(dim=-1)[..., :-1]
    with torch.autocast(mask_logits.device.type, enabled=False):
        return torch.stack(
            [
                torch.einsum("qk,qhw->khw", one, resize(masks[None].float(), size)[0].sigmoid())
                for one, masks in zip(probabilities, mask_logits, strict=True)
            ]
        )


def _scaled(side: int, scale: float) -> int:
    return max(1, math.ceil(side * scale))  # a grid of one patch has a coarser map too


def _check_levels(shapes: Mapping[str, ShapeSpec], names: Sequence[str], scales: Sequence[float] | None) -> int:
    """Return the stride of the first map.

    Raises:
        UserError: see `Mask2FormerHead`.
    """
    unknown = [name for name in names if name not in shapes]
    if unknown:
        raise UserError(f"Mask2Former wants the map '{unknown[0]}'; the backbone has: {', '.join(shapes)}")
    if len(names) != _LEVELS:
        raise UserError(
            f"Mask2Former needs {_LEVELS} maps, got {len(names)} ({', '.join(names)}); name one twice in in_features, "
            f"or let the backbone tap {_LEVELS} blocks"
        )
    if scales is not None and len(scales) != _LEVELS:
        raise UserError(f"Mask2Former needs {_LEVELS} scales, got {len(scales)}")
    strides = [int(shapes[name].stride) for name in names]
    ratios = [stride / scale for stride, scale in zip(strides, scales or [1.0] * _LEVELS, strict=True)]
    if any(coarse != 2 * fine for fine, coarse in zip(ratios, ratios[1:], strict=False)):
        said = "as they are" if scales is None else f"scaled by {', '.join(f'{scale:g}' for scale in scales)}"
        raise UserError(
            f"Mask2Former's maps must double their stride from one to the next; {', '.join(names)} {said} have the "
            f"strides {', '.join(f'{ratio:g}' for ratio in ratios)}"
        )
    return strides[0]
