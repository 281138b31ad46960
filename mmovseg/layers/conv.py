"""Convolution blocks of the decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HAS_NNPACK = torch._nnpack_available()


class PatchUpsampling(nn.ConvTranspose2d):
    """Transposed convolution whose kernel is its stride: patches do not overlap, so it is one matrix product.

    Same weights and function as `nn.ConvTranspose2d`; the result lies in memory with the channels last.
    """

    def __init__(self, in_channels: int, out_channels: int, ratio: int) -> None:
        super().__init__(in_channels, out_channels, ratio, stride=ratio)
        self.ratio = ratio

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C, h, w) -> (N, D, r*h, r*w)."""
        assert output_size is None and self.bias is not None
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (r * r * D, C)
        patches = F.linear(x.permute(0, 2, 3, 1), weight, self.bias.repeat(self.ratio**2))
        patches = patches.unflatten(3, (self.ratio, self.ratio, -1)).permute(0, 1, 3, 2, 4, 5)
        return patches.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class WideConv2d(nn.Conv2d):
    """Convolution with a large kernel over many channels, at inference on a CPU by Fourier transforms (NNPACK).

    Half the time of the direct one at 7x7 and 32 channels, and closer to the result in double precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, D, h, w)."""
        if not _HAS_NNPACK or torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return super().forward(x)
        # NNPACK knows neither other numbers nor an empty batch, nor tensors without values (type FakeTensor)
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        if x.numel() == 0 or type(x) is not Tensor:
            return super().forward(x)
        return torch._nnpack_spatial_convolution(x, self.weight, self.bias, self.padding, self.stride)


class GuidedDoubleConv(nn.Module):
    """Two 3x3 convolutions over per-class maps, guided by features that all classes of an image share.

    A plain implementation repeats the guidance for every class and concatenates. The first convolution is linear, so
    conv([x; guidance]) = conv_x(x) + conv_g(guidance): here the guidance is convolved once per image and broadcast
    over the classes. Same function, same parameters, a fraction of the cost.
    """

    def __init__(self, in_channels: int, guidance_channels: int, out_channels: int) -> None:
        super().__init__()
        groups = max(1, out_channels // 16)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.guidance = (
            nn.Conv2d(guidance_channels, out_channels, 3, padding=1, bias=False) if guidance_channels else None
        )
        self.norm1 = nn.GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor, guidance: Tensor | None, num_classes: int) -> Tensor:
        """Refine class maps.

        Args:
            x: (N*K, C, h, w), classes of one image next to each other.
            guidance: (N, G, h, w), or None when no modality can guide.
            num_classes: K.

        Returns:
            (N*K, C_out, h, w), non-negative.
        """
        y = self.conv1(x)
        if guidance is not None and self.guidance is not None:
            extra = self.guidance(guidance)
            y = y.unflatten(0, (-1, num_classes)).add_(extra[:, None]).flatten(0, 1)
        y = F.relu(self.norm1(y), inplace=True)
        return F.relu(self.norm2(self.conv2(y)), inplace=True)


class GuidedUpsampling(nn.Module):
    """Double the resolution of per-class maps (transposed convolution), then refine them with `GuidedDoubleConv`."""

    def __init__(self, in_channels: int, up_channels: int, guidance_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = PatchUpsampling(in_channels, up_channels, 2)
        self.refine = GuidedDoubleConv(up_channels, guidance_channels, out_channels)

    def forward(self, x: Tensor, guidance: Tensor | None, num_classes: int) -> Tensor:
        """(N*K, C, h, w) and (N, G, 2h, 2w) -> (N*K, C_out, 2h, 2w); see `GuidedDoubleConv`."""
        return self.refine(self.up(x), guidance, num_classes)


def join_guidance(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate (N, G, h, w) maps of equal shape; an absent one is zero, what "no match" is after a ReLU.

    Returns:
        (N, G * len(parts), h, w), or None when all are absent.
    """
    known = next((part for part in parts if part is not None), None)
    if known is None:
        return None
    return torch.cat([part if part is not None else torch.zeros_like(known) for part in parts], dim=1)


def stride_adapter(in_channels: int, out_channels: int, *, stride_in: int, stride_out: int) -> nn.Module:
    """Return the one convolution that takes a map of `stride_in` to `stride_out` pixels.

    Finer: transposed convolution with kernel = stride = ratio. Equal: 1x1. Coarser: strided convolution.

    Raises:
        ValueError: neither stride divides the other.
    """
    if stride_in % stride_out == 0:
        ratio = stride_in // stride_out
        if ratio == 1:
            return nn.Conv2d(in_channels, out_channels, 1)
        return PatchUpsampling(in_channels, out_channels, ratio)
    if stride_out % stride_in == 0:
        ratio = stride_out // stride_in
        return nn.Conv2d(in_channels, out_channels, ratio, stride=ratio)
    raise ValueError(f"cannot go from stride {stride_in} to stride {stride_out}: neither divides the other")


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) bilinearly to `size` (pixel centres aligned); the same tensor when the size is right."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def pad_to_multiple(x: Tensor, multiple: int, *, value: float = 0) -> Tensor:
    """Pad (..., H, W) with `value` at the bottom and right so that both sides are multiples of `multiple`."""
    height, width = x.shape[-2:]
    bottom = math.ceil(height / multiple) * multiple - height
    right = math.ceil(width / multiple) * multiple - width
    return x if bottom == right == 0 else F.pad(x, (0, right, 0, bottom), value=value)


def masked_mean_pool(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the share of True pixels of (N, 1, H, W) in each cell of a `size` grid, float in [0, 1]."""
    return F.adaptive_avg_pool2d(mask.to(torch.float32), size)


def weigh_by_share(x: Tensor, mask: Tensor | None) -> Tensor:
    """Multiply (N, C, h, w) by the share of True pixels of (N, 1, H, W) in each cell; `x` itself without a mask."""
    if mask is None:
        return x
    return x * masked_mean_pool(mask, (x.shape[-2], x.shape[-1])).to(x.dtype)


def fill_in(x: Tensor, stand_in: Tensor, mask: Tensor | None) -> Tensor:
    """Mix two maps of one grid: `x` by the share of True pixels of `mask` in a cell, `stand_in` by the rest."""
    if mask is None:
        return x
    share = masked_mean_pool(mask, (x.shape[-2], x.shape[-1])).to(x.dtype)
    return x * share + stand_in * (1 - share)
