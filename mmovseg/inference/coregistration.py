"""How far an optical and a SAR image of one place lie apart: a shift by the direction of edges, with a confidence.

The two sensors agree on where edges run and not on which side is bright. Each pixel becomes a vector whose angle is
twice that of the gradient, so that an edge and its negative are one, and whose length saturates, so that neither bright
roofs nor cloud decide. Correlating these fields needs no training and no common unit. Windows are correlated one by
one and added up, so that those under cloud, which add noise only, do not spoil the others.

Source: orientation correlation as in Fitch et al., BMVC 2002; differs in the doubled angle (for contrast that turns
round between sensors), the saturation, the masks and the sum over windows. Nothing is moved here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SEARCH_PX = 24
"""Shifts up to so many pixels are looked for."""
WINDOW_PX = 320
"""Side of a window with its border for the search."""
SURE = 6.0
"""A peak that stands out so many times the spread of the surface around it is taken for the shift."""

_SIGMA_PX = 0.8
_REACH_SIGMAS = 3.0
_PEAK_PX = 5
LEAST_SEARCH_PX = 2 * _PEAK_PX + 1
"""With a smaller search little or nothing of the surface would lie beside the peak to compare it with."""


@dataclass(frozen=True)
class Correlation:
    """How well two images agree when one is moved, summed over windows; it can be added up.

    agreement: (2 R + 1, 2 R + 1), entry (R + dy, R + dx) for SAR structure that lies dy pixels further down and dx
        further right than the optical one. energy: the most that the agreement could be.
    """

    agreement: np.ndarray
    energy: np.ndarray

    @property
    def surface(self) -> np.ndarray:
        """Agreement as a share of the most there could be, -1..1; 0 where nothing can be compared."""
        return self.agreement / np.maximum(self.energy, 1e-6)


@dataclass(frozen=True)
class Shift:
    """A displacement of SAR against optical in pixels, down and right.

    sharpness: how many times the spread of the rest of the surface the peak stands above it; `is_sure` from `SURE` on.
    agreement: height of the peak, -1..1.
    """

    dy: float
    dx: float
    sharpness: float
    agreement: float

    @property
    def is_sure(self) -> bool:
        return self.sharpness >= SURE

    @property
    def length(self) -> float:
        return math.hypot(self.dy, self.dx)


def edge_field(image: np.ndarray, valid: np.ndarray, *, sigma_px: float = _SIGMA_PX) -> tuple[np.ndarray, np.ndarray]:
    """Turn an image into its field of edge directions.

    Args:
        image: (H, W) grey values, or SAR in dB; anything where not valid.
        valid: (H, W) bool.
        sigma_px: edges are looked for at this scale; more is calmer in speckle.

    Returns:
        (H, W) complex64 of length 0..1 and angle twice that of the gradient, and (H, W) bool where it is known: the
        pixels whose whole neighbourhood is valid.
    """
    height, width = image.shape
    known = _shrink(valid, math.ceil(_REACH_SIGMAS * sigma_px))
    if not known.any():
        return np.zeros(image.shape, dtype=np.complex64), known
    low, middle, high = np.percentile(image[valid], (1, 50, 99))
    filled = np.where(valid, np.clip(image, low, high), middle)
    ky, kx = 2 * np.pi * np.fft.fftfreq(height)[:, None], 2 * np.pi * np.fft.rfftfreq(width)[None, :]
    smooth = np.fft.rfft2(filled) * np.exp(-0.5 * sigma_px**2 * (ky**2 + kx**2))
    gradient = np.fft.irfft2(1j * kx * smooth, s=image.shape) + 1j * np.fft.irfft2(1j * ky * smooth, s=image.shape)
    length = np.abs(gradient)
    usual = float(np.median(length[known]))
    field = gradient**2 / np.maximum(length * (length + usual), 1e-12)
    return np.where(known, field, 0).astype(np.complex64), known


def _shrink(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels whose square neighbourhood lies in the mask and in the image."""
    padded = np.pad(mask.astype(np.int64), ((reach + 1, reach), (reach + 1, reach)))
    sums = padded.cumsum(axis=0).cumsum(axis=1)
    side = 2 * reach + 1
    counts = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return counts == side * side


def correlate(
    optical: np.ndarray,
    sar: np.ndarray,
    optical_valid: np.ndarray,
    sar_valid: np.ndarray,
    *,
    search_px: int = SEARCH_PX,
) -> Correlation:
    """Correlate one window of two images on one grid.

    Args:
        optical: (H, W) grey values; H and W more than twice `search_px`.
        sar: (H, W) in dB.
        optical_valid, sar_valid: (H, W) bool; clouded pixels may be left out or in.
        search_px: R, at least `LEAST_SEARCH_PX`.

    Raises:
        ValueError: the search is too small, or the window is for the search.
    """
    if search_px < LEAST_SEARCH_PX:
        raise ValueError(f"shifts of up to {LEAST_SEARCH_PX} pixels must be looked for, got {search_px}")
    height, width = optical.shape
    if min(height, width) <= 2 * search_px:
        raise ValueError(f"a window of {height}x{width} pixels is too small to look for shifts of {search_px}")
    # what lies near the edge of the optical window may have moved out of the other: only its middle is looked up
    middle = np.zeros(optical.shape, dtype=bool)
    middle[search_px : height - search_px, search_px : width - search_px] = True
    here, here_known = edge_field(optical, optical_valid)
    there, there_known = edge_field(sar, sar_valid)
    here, here_known = np.where(middle, here, 0), here_known & middle
    agreement = _correlate(here, there, search_px).real
    # of the two energies each counts the pixels that the other field knows as well
    own = _correlate(np.abs(here) ** 2, there_known.astype(np.float64), search_px).real
    other = _correlate(here_known.astype(np.float64), np.abs(there) ** 2, search_px).real
    return Correlation(agreement, np.sqrt(np.maximum(own, 0) * np.maximum(other, 0)))


def _correlate(first: np.ndarray, second: np.ndarray, reach: int) -> np.ndarray:
    """Return the sum over x of conj(first(x)) second(x + s) for every shift s of at most `reach`."""
    full = np.fft.ifft2(np.conj(np.fft.fft2(first)) * np.fft.fft2(second))
    steps = np.arange(-reach, reach + 1)
    return full[np.ix_(steps, steps)]


def add_up(correlations: Iterable[Correlation]) -> Correlation:
    """Return the correlation of several windows together; a window with more structure counts more."""
    parts = list(correlations)
    return Correlation(sum(part.agreement for part in parts), sum(part.energy for part in parts))  # type: ignore[arg-type]


def find_shift(correlation: Correlation) -> Shift:
    """Return where two images agree best."""
    surface = correlation.surface
    reach = surface.shape[0] // 2
    top, left = (int(index) for index in np.unravel_index(int(np.argmax(surface)), surface.shape))
    peak = float(surface[top, left])
    rows, cols = np.ogrid[: surface.shape[0], : surface.shape[1]]
    rest = surface[np.maximum(abs(rows - top), abs(cols - left)) > _PEAK_PX]
    level = float(np.median(rest))
    spread = 1.4826 * float(np.median(np.abs(rest - level)))
    dy = top + _vertex(surface[:, left], top) - reach
    dx = left + _vertex(surface[top], left) - reach
    return Shift(dy, dx, (peak - level) / max(spread, 1e-9), peak)


def _vertex(values: np.ndarray, index: int) -> float:
    """Return how far the vertex of the parabola through a maximum and its neighbours lies from it, at most half."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, here, after = (float(value) for value in values[index - 1 : index + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))


def share_near(shifts: Sequence[Shift], centre: Shift, *, within_px: float = 1.5) -> float | None:
    """Return the share of the sure shifts that lie near another; None when none is sure."""
    near = [math.hypot(one.dy - centre.dy, one.dx - centre.dx) <= within_px for one in shifts if one.is_sure]
    return sum(near) / len(near) if near else None
