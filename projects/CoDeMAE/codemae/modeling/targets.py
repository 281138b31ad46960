"""What cross-modal reconstruction has to predict of the other sensor (paper Sec. III-D, Table IId)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmovseg.errors import UserError

TargetName = Literal["grey", "pixel", "spatial", "dual", "median", "hog", "mgf"]

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, of R, G, B
_BINS, _CELL, _WINDOW = 9, 8, 16  # of the histogram of oriented gradients, pixels
_HALF_WIDTHS = (9, 13, 17)  # of the windows of the multi-scale gradient, pixels
_MEDIAN = 5
_PLANES = {"grey": 1, "dual": 1, "hog": _BINS, "mgf": len(_HALF_WIDTHS)}  # the others keep the channels
_REACH = {"median": _MEDIAN // 2, "hog": 1, "mgf": max(_HALF_WIDTHS)}  # pixels around one that its target reads


class CrossTarget(nn.Module):
    """Turn a standardised image into a target of P planes of the same size.

    ``grey``: 0.299 R + 0.587 G + 0.114 B, or the mean over the channels of SAR; P = 1. The paper's.
    ``pixel``: the image itself; P = C.
    ``spatial``: means over squares of `pool_px`, repeated to the pixels; P = C. ``dual``: the same of grey; P = 1.
    ``median``: median of 5x5 pixels; P = C.
    ``hog``: histograms of unsigned gradient directions over cells of 8x8 pixels, 9 bins of unit length, repeated to the
        pixels; P = 9. Gradients by Sobel's filters, weighted by a Gaussian over windows of 16x16 pixels.
    ``mgf``: size of the ratio gradient, sqrt(log(right / left)^2 + log(below / above)^2) of the mean brightness on
        either side of a pixel, in windows of half width 9, 13 and 17; P = 3.

    The release takes the last two from images on a scale of 0..1 before standardisation. Rasters here come in several
    units, dB among them, which may be negative; brightness is therefore 1/2 + grey / 6 cut to 0.01..1: three deviations
    around the mean.

    Args:
        name: which.
        unit_size: side of a patch of the decoder, pixels.
        pool_px: side of the squares of ``spatial``; None = a patch, as in the release (16).

    Raises:
        UserError: ``hog`` with patches that its cells do not fill.
    """

    def __init__(self, name: TargetName, *, unit_size: int, pool_px: int | None = None) -> None:
        super().__init__()
        if name == "hog" and unit_size % _CELL:
            raise UserError(f"the target 'hog' has cells of {_CELL} px, which do not fill patches of {unit_size} px")
        self.name = name
        self.pool_px = pool_px or unit_size

    @property
    def is_flat(self) -> bool:
        """Whether the target is constant within a patch, so that normalising it patch by patch leaves nothing."""
        return self.name in ("spatial", "dual")

    def planes(self, in_chans: int) -> int:
        """P for a sensor of this many channels."""
        return _PLANES.get(self.name, in_chans)

    def forward(self, x: Tensor, valid: Tensor | None = None, *, sensor: str) -> tuple[Tensor, Tensor | None]:
        """Degrade.

        Args:
            x: (N, C, H, W) standardised, 0 where there is no data.
            valid: (N, 1, H, W) bool; None = all pixels hold data.
            sensor: ``optical`` or ``sar``.

        Returns:
            (N, P, H, W) float32, and (N, 1, H, W) bool: where the target reads nothing but pixels with data; None with
            `valid` None. ``spatial`` averages what is there of a square.
        """
        x = x.float()
        if self.name in ("grey", "pixel"):
            return (to_grey(x, sensor) if self.name == "grey" else x), valid
        if self.is_flat:
            return _pool(to_grey(x, sensor) if self.name == "dual" else x, valid, self.pool_px)
        holds = None if valid is None else _shrink(valid, _REACH[self.name])
        if self.name == "median":
            return torch.cat([_median(image[None]) for image in x]), holds
        bright = (0.5 + to_grey(x, sensor) / 6).clamp(0.01, 1.0)
        if self.name == "mgf":
            return torch.cat([_ratio_gradient(bright, half) for half in _HALF_WIDTHS], dim=1), holds
        if holds is not None:  # a cell is right when all its pixels are
            whole = -F.max_pool2d(-holds.float(), _CELL)
            holds = F.interpolate(whole, scale_factor=_CELL, mode="nearest") > 0.5
        return _oriented_gradients(bright), holds


def to_grey(x: Tensor, sensor: str) -> Tensor:
    """One plane of a standardised image: (N, C, H, W) -> (N, 1, H, W); optical is RGB."""
    if sensor != "optical":
        return x.mean(dim=1, keepdim=True)
    return (x * x.new_tensor(_GREY)[:, None, None]).sum(dim=1, keepdim=True)


def _shrink(valid: Tensor, reach: int) -> Tensor:
    """Pixels whose neighbourhood of `reach` pixels is valid all over; beyond the border counts as valid."""
    return F.max_pool2d((~valid).float(), 2 * reach + 1, stride=1, padding=reach) < 0.5


def _pool(x: Tensor, valid: Tensor | None, side: int) -> tuple[Tensor, Tensor | None]:
    """Means over squares, of the pixels with data, repeated to the pixels."""
    size = x.shape[-2:]
    weights = torch.ones_like(x[:, :1]) if valid is None else valid.to(x.dtype)
    options = {"kernel_size": side, "stride": side, "ceil_mode": True, "count_include_pad": False}
    there = F.avg_pool2d(weights, **options)
    means = F.avg_pool2d(x * weights, **options) / there.clamp_min(1e-6)
    means, there = (
        part.repeat_interleave(side, -2).repeat_interleave(side, -1)[..., : size[0], : size[1]]
        for part in (means, there)
    )
    return means, None if valid is None else there > 0


def _median(x: Tensor) -> Tensor:
    """Median of 5x5 pixels, the border repeated: (1, C, H, W) -> the same."""
    padded = F.pad(x, (_MEDIAN // 2,) * 4, mode="replicate")
    windows = padded.unfold(2, _MEDIAN, 1).unfold(3, _MEDIAN, 1)
    return windows.flatten(4).median(dim=4).values


def _ratio_gradient(bright: Tensor, half: int) -> Tensor:
    """Size of the ratio gradient: (N, 1, H, W) positive -> the same."""
    across = _log_ratio(bright, half)
    down = _log_ratio(bright.transpose(2, 3), half).transpose(2, 3)
    return (across.square() + down.square()).sqrt()


def _log_ratio(bright: Tensor, half: int) -> Tensor:
    """log(mean of the window right of a pixel / left of it); windows of `half` columns and 2 * half + 1 rows."""
    width = bright.shape[3]
    padded = F.pad(bright, (half,) * 4, mode="replicate")
    rows = F.avg_pool2d(padded, (2 * half + 1, 1), stride=1)
    sides = F.avg_pool2d(rows, (1, half), stride=1)  # column j: mean of the padded columns j .. j + half - 1
    left, right = sides[..., :width], sides[..., half + 1 : half + 1 + width]
    return (right / left).log()


def _oriented_gradients(bright: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 9, H, W): the histogram of a pixel's cell."""
    sobel = bright.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    gradient = F.conv2d(F.pad(bright, (1, 1, 1, 1), mode="replicate"), torch.stack([sobel, sobel.T])[:, None])
    across, down = gradient[:, :1], gradient[:, 1:]
    angle = torch.atan2(down, across).remainder(math.pi) / math.pi * _BINS
    bins = angle.floor().long().clamp(max=_BINS - 1)
    sizes = gradient.square().sum(dim=1, keepdim=True).sqrt() * _window(bright)
    histogram = sizes.new_zeros(len(bright), _BINS, *bright.shape[2:]).scatter(1, bins, sizes)
    cells = F.normalize(F.avg_pool2d(histogram, _CELL), dim=1)
    return cells.repeat_interleave(_CELL, 2).repeat_interleave(_CELL, 3)


def _window(like: Tensor) -> Tensor:
    """Gaussian weights of deviation 8 around the centres of 16x16 windows that tile the image, (H, W)."""
    places = [torch.arange(side, device=like.device) % _WINDOW - (_WINDOW - 1) / 2 for side in like.shape[2:]]
    rows, columns = (torch.exp(-place.square() / (2 * (_WINDOW / 2) ** 2)) for place in places)
    return (rows[:, None] * columns).to(like.dtype)
