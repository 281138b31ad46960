"""Three numbers that say how a SAR image behaves physically: texture direction, speckle, roughness (paper Sec. 3.2).

All are computed on X' = log(1 + |X|) of the amplitude, in float32 and without a graph. One vector stands for one image
and goes to every router.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmovseg.errors import UserError

Angle = Literal["signed", "unsigned"]
Weighting = Literal["magnitude", "count"]
Channels = Literal["mean", "first", "luminance"]
DescriptorNorm = Literal["affine", "bounded", "none"]
Unit = Literal["amplitude", "db"]

NUM_DESCRIPTORS = 3
_MIN_BLOCK_SHARE = 0.5


class SARDescriptors(nn.Module):
    """Directional entropy, equivalent number of looks and local roughness of images.

    The paper gives the formulas and no constant. The defaults differ from a literal reading in two points, each an
    option: directions are weighted by the size of the gradient (a plain count is at its maximum for every speckled
    image), and the values are brought to one scale (raw, the number of looks spans three decades and would drown the
    tokens beside it). ``weighting="count", norm="none"`` is the paper.

    Args:
        num_bins: bins of the direction histogram, centred on 0, so that rounding does not split axis-parallel edges.
        angle: ``signed`` directions over 2 pi (what atan2 gives), or ``unsigned`` over pi: light-to-dark is then
            dark-to-light.
        weighting: a pixel counts in the histogram by the ``magnitude`` of its gradient, or once (``count``).
        block: side in pixels of the blocks of the roughness.
        eps: least size of a gradient that has a direction, and added to the variance in the number of looks.
        channels: of several channels take the ``mean`` of their descriptors, the ``first`` one (all are copies), or
            the descriptors of their mean, ``luminance``.
        norm: ``none`` leaves [H, ENL, R]; ``bounded`` gives [H / ln(bins), ln(1 + ENL), sqrt(R)]; ``affine`` further
            subtracts `mean`, divides by `std` and limits to +-`clamp`.
        mean, std: of the bounded values over the training images, see `estimate_statistics`; stored with the weights.
            The defaults are wide guesses from simulated speckle of 1 to 16 looks.
        clamp: limit after ``affine``.
        unit: of the raster: ``amplitude`` (0..255 is what the defaults expect; signed values are taken by their size),
            or ``db``, which is turned into amplitude.
        gain: factor on the amplitude, to bring it to 0..255.

    Raises:
        UserError: an option is unknown or impossible.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        num_bins: int = 36,
        angle: Angle = "signed",
        weighting: Weighting = "magnitude",
        block: int = 32,
        eps: float = 1e-6,
        channels: Channels = "mean",
        norm: DescriptorNorm = "affine",
        mean: Sequence[float] = (0.9, 3.0, 0.3),
        std: Sequence[float] = (0.1, 1.0, 0.2),
        clamp: float = 3.0,
        unit: Unit = "amplitude",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        for value, kind, option in (
            (angle, Angle, "angle"),
            (weighting, Weighting, "weighting"),
            (channels, Channels, "channels"),
            (norm, DescriptorNorm, "norm"),
            (unit, Unit, "unit"),
        ):
            if value not in get_args(kind):
                raise UserError(f"{option} of SARDescriptors must be one of {', '.join(get_args(kind))}, got '{value}'")
        if num_bins < 2 or block < 1 or eps <= 0:
            raise UserError(f"SARDescriptors needs num_bins > 1, block > 0 and eps > 0, got {num_bins}, {block}, {eps}")
        if len(mean) != NUM_DESCRIPTORS or len(std) != NUM_DESCRIPTORS or min(std) <= 0:
            raise UserError(f"SARDescriptors needs 3 means and 3 positive stds, got {tuple(mean)} and {tuple(std)}")
        self.num_bins, self.block, self.eps, self.clamp, self.gain = num_bins, block, eps, clamp, gain
        self.angle, self.weighting, self.channels, self.norm, self.unit = angle, weighting, channels, norm, unit
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Describe images.

        Args:
            x: (N, C, H, W) raster in `unit`, before any normalisation. Values that are not finite count as no data.
            valid: (N, H, W) bool, False = no data or padding; None = all valid.

        Returns:
            (N, 3) float32: directional entropy, number of looks, roughness, normalised as `norm` says. An image without
            data has the raw values 0.
        """
        values = self.raw(x, valid)
        if self.norm == "none":
            return values
        bounded = self.bound(values)
        if self.norm == "bounded":
            return bounded
        return ((bounded - self.mean) / self.std).clamp(-self.clamp, self.clamp)

    @torch.no_grad()
    def raw(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The paper's three values [H, ENL, R] (N, 3) float32; arguments of `forward`."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            known = torch.isfinite(x).all(dim=1)
            known = known if valid is None else known & valid
            logs = self._to_log(torch.where(known[:, None], x, torch.zeros_like(x)))
            count = logs.shape[1]
            logs, known = logs.flatten(0, 1), known.repeat_interleave(count, dim=0)
            entropy = directional_entropy(
                logs, known, num_bins=self.num_bins, angle=self.angle, weighting=self.weighting, eps=self.eps
            )
            values = [entropy, number_of_looks(logs, known, eps=self.eps), roughness(logs, known, block=self.block)]
            return torch.stack(values, dim=1).unflatten(0, (-1, count)).mean(dim=1)

    def bound(self, values: Tensor) -> Tensor:
        """[H, ENL, R] (N, 3) -> [H / ln(bins), ln(1 + ENL), sqrt(R)]: all of the order of 1."""
        return torch.stack([values[:, 0] / math.log(self.num_bins), values[:, 1].log1p(), values[:, 2].sqrt()], dim=1)

    def _to_log(self, x: Tensor) -> Tensor:
        """(N, C, H, W) raster -> (N, C', H, W) X', with the channels that are described."""
        if self.unit == "db":
            x = torch.pow(10.0, x / 20.0)
        x = x.abs() * self.gain
        if self.channels == "first":
            x = x[:, :1]
        elif self.channels == "luminance":
            x = x.mean(dim=1, keepdim=True)
        return x.log1p()


def estimate_statistics(
    descriptors: SARDescriptors, images: Iterable[tuple[Tensor, Tensor | None]]
) -> tuple[list[float], list[float]]:
    """Return `mean` and `std` of the bounded values, for the options of `SARDescriptors`.

    Args:
        descriptors: with the options of the model; its own constants are not read.
        images: each (C, H, W) as the model sees it, crop by crop, and where it holds data (H, W); two at least.

    Raises:
        UserError: fewer than two images, or a descriptor that is the same for all.
    """
    rows = [
        descriptors.bound(descriptors.raw(image[None], None if valid is None else valid[None]))[0]
        for image, valid in images
    ]
    if len(rows) < 2:
        raise UserError(f"statistics of descriptors need two images at least, got {len(rows)}")
    deviation, mean = torch.std_mean(torch.stack(rows).double(), dim=0)
    if float(deviation.min()) <= 0:
        raise UserError("statistics of descriptors: one of the three is the same for all images")
    return mean.tolist(), deviation.tolist()


def directional_entropy(
    x: Tensor, valid: Tensor, *, num_bins: int, angle: Angle, weighting: Weighting, eps: float
) -> Tensor:
    """Entropy in nat of the histogram of gradient directions (Sobel 3x3, borders repeated).

    Pixels without a gradient have no direction, and pixels beside missing ones a false one: neither is counted.

    Args:
        x: (N, H, W).
        valid: (N, H, W) bool.
        num_bins: of the histogram.
        angle: see `SARDescriptors`.
        weighting: see there.
        eps: least size of a gradient that counts.

    Returns:
        (N,) from 0 (one direction) to ln(num_bins); 0 where no pixel counts.
    """
    padded = F.pad(x[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    # the difference first: it is exactly 0 between equal pixels
    across, down = padded[:, :, 2:] - padded[:, :, :-2], padded[:, 2:] - padded[:, :-2]
    gx = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    gy = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    size = torch.hypot(gx, gy)
    whole = -F.max_pool2d(-valid[:, None].float(), 3, stride=1, padding=1)[:, 0]
    counted = (size > eps) & (whole > 0)
    period = 2 * math.pi if angle == "signed" else math.pi
    bins = (torch.atan2(gy, gx) * (num_bins / period)).round().long() % num_bins
    weights = (size if weighting == "magnitude" else torch.ones_like(size)) * counted
    histogram = x.new_zeros(len(x), num_bins).scatter_add_(1, bins.flatten(1), weights.flatten(1))
    shares = histogram / histogram.sum(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return -torch.special.xlogy(shares, shares).sum(dim=1)


def number_of_looks(x: Tensor, valid: Tensor, *, eps: float) -> Tensor:
    """Equivalent number of looks (mean / deviation)^2 of an image.

    Args:
        x: (N, H, W).
        valid: (N, H, W) bool.
        eps: added to the variance.

    Returns:
        (N,), mean^2 / eps for a constant image, 0 without data.
    """
    count = valid.sum(dim=(1, 2)).clamp(min=1)
    mean = (x * valid).sum(dim=(1, 2)) / count
    variance = ((x - mean[:, None, None]).square() * valid).sum(dim=(1, 2)) / count
    return mean.square() / (variance + eps)


def roughness(x: Tensor, valid: Tensor, *, block: int) -> Tensor:
    """Variance (biased) of the means of square blocks.

    Blocks with less than half of their pixels, at the lower and right border or beside missing data, are left out.

    Args:
        x: (N, H, W).
        valid: (N, H, W) bool.
        block: side in pixels.

    Returns:
        (N,), 0 with fewer than two blocks.
    """
    pad = (0, -x.shape[2] % block, 0, -x.shape[1] % block)
    shares = F.avg_pool2d(F.pad(valid.float(), pad)[:, None], block).flatten(1)
    sums = F.avg_pool2d(F.pad(x * valid, pad)[:, None], block).flatten(1)
    used = shares >= _MIN_BLOCK_SHARE
    means = torch.where(used, sums / shares.clamp(min=_MIN_BLOCK_SHARE), torch.zeros_like(sums))
    count = used.sum(dim=1).clamp(min=1)
    centre = means.sum(dim=1) / count
    return ((means - centre[:, None]).square() * used).sum(dim=1) / count
