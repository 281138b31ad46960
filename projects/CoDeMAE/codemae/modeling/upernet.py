"""UPerNet's head over the levels of an encoder, and the small convolutional head beside it in training.

Source: Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018; widths and the auxiliary head as
the CoDe-MAE release took them from its framework.

Shapes: N images, C channels of a level, K classes; h, w is the grid of the finest level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from detectron2.layers import NaiveSyncBatchNorm, ShapeSpec
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.layers.conv import resize

NormKind = Literal["group", "batch", "sync"]
_GROUP_CHANNELS = 16


def make_norm(kind: NormKind, channels: int) -> nn.Module:
    """Return the norm behind a convolution.

    ``group``, the default of the heads here, is the same for any batch: statistics are of one image, in groups of
    about 16 channels. The others need large batches. The coarsest pool of UPerNet has one pixel an image, so a batch
    of two gives statistics of two numbers, and a batch of one an error. ``batch`` and ``sync`` (statistics over all
    processes, on any device) are what the released models were trained with.

    Raises:
        UserError: unknown kind.
    """
    if kind not in get_args(NormKind):
        raise UserError(f"norm of a head is '{kind}' but must be one of {', '.join(get_args(NormKind))}")
    if kind == "group":
        most = max(1, channels // _GROUP_CHANNELS)
        return nn.GroupNorm(max(count for count in range(1, most + 1) if channels % count == 0), channels)
    return nn.BatchNorm2d(channels) if kind == "batch" else NaiveSyncBatchNorm(channels)


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int, norm: NormKind) -> nn.Sequential:
    """Return convolution without bias, norm, ReLU; the map keeps its size."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, make_norm(norm, out_channels), nn.ReLU(inplace=True))


def by_stride(shapes: Mapping[str, ShapeSpec]) -> list[str]:
    """Return the names of the levels from fine to coarse."""
    return sorted(shapes, key=lambda name: shapes[name].stride)


class PyramidPooling(nn.Module):
    """Context of the whole image: the map beside its means over grids of several sizes.

    Args:
        in_channels: of the map.
        channels: of every pooled map and of the result.
        scales: sides of the grids.
        norm: see `make_norm`.
    """

    def __init__(self, in_channels: int, channels: int, *, scales: Sequence[int], norm: NormKind) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.pools = nn.ModuleList(conv_norm_relu(in_channels, channels, 1, norm) for _ in self.scales)
        self.bottleneck = conv_norm_relu(in_channels + len(self.scales) * channels, channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) -> (N, channels, h, w)."""
        size = (x.shape[2], x.shape[3])
        pooled = [
            resize(conv(F.adaptive_avg_pool2d(x, n)), size) for n, conv in zip(self.scales, self.pools, strict=True)
        ]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))


class UPerNetHead(nn.Module):
    """Pyramid pooling on the coarsest level, a top-down path, and all levels fused on the finest grid.

    Args:
        shapes: of the encoder's levels.
        num_classes: K.
        channels: of everything inside.
        pool_scales: sides of the grids that the coarsest level is pooled to.
        norm: see `make_norm`.
        dropout: share of channels that the classifier does without in training.

    Raises:
        UserError: fewer than two levels, or an unknown norm.
    """

    def __init__(
        self,
        shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        channels: int = 256,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        norm: NormKind = "group",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(shapes) < 2:
            raise UserError(f"UPerNet needs at least two levels of the encoder, got: {', '.join(shapes) or 'none'}")
        self.levels = by_stride(shapes)
        *finer, coarsest = self.levels
        self.pooling = PyramidPooling(shapes[coarsest].channels, channels, scales=pool_scales, norm=norm)
        self.laterals = nn.ModuleList(conv_norm_relu(shapes[name].channels, channels, 1, norm) for name in finer)
        self.smooth = nn.ModuleList(conv_norm_relu(channels, channels, 3, norm) for _ in finer)
        self.fusion = conv_norm_relu(len(self.levels) * channels, channels, 3, norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Score classes.

        Args:
            features: level -> (N, C, h / r, w / r).

        Returns:
            (N, K, h, w) logits.
        """
        *finer, coarsest = self.levels
        maps = [lateral(features[name]) for name, lateral in zip(finer, self.laterals, strict=True)]
        maps.append(self.pooling(features[coarsest]))
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + resize(maps[i], (maps[i - 1].shape[2], maps[i - 1].shape[3]))
        maps = [*(conv(x) for x, conv in zip(maps[:-1], self.smooth, strict=True)), maps[-1]]
        size = (maps[0].shape[2], maps[0].shape[3])
        return self.classifier(self.dropout(self.fusion(torch.cat([resize(x, size) for x in maps], dim=1))))


class ConvHead(nn.Module):
    """One convolution and a classifier on one level: a shortcut for gradients in training, not used afterwards.

    Args:
        shapes: of the encoder's levels.
        num_classes: K.
        level: which; None = the last but one, counted from fine to coarse.
        channels: of the convolution.
        norm: see `make_norm`.
        dropout: as of `UPerNetHead`.

    Raises:
        UserError: the encoder has no such level, or an unknown norm.
    """

    def __init__(
        self,
        shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        level: str | None = None,
        channels: int = 256,
        norm: NormKind = "group",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.level = level if level is not None else by_stride(shapes)[-2]
        if self.level not in shapes:
            raise UserError(f"the auxiliary head wants the level '{self.level}'; the encoder has: {', '.join(shapes)}")
        self.conv = conv_norm_relu(shapes[self.level].channels, channels, 3, norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (N, K, h, w) on the grid of the level."""
        return self.classifier(self.dropout(self.conv(features[self.level])))


def classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """Return a 1x1 convolution that starts with nearly equal scores."""
    conv = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv
