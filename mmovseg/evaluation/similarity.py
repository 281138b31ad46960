"""Centred kernel alignment (CKA): how alike two feature spaces are, up to rotation and scale.

Kornblith et al., "Similarity of neural network representations revisited" (2019), with the unbiased estimator of HSIC
by Song et al., "Feature selection via dependence maximization" (2012), eq. 5. The plain estimate of unrelated features
grows with channels / samples; this one is 0 on average, so that few samples and wide encoders compare with many and
narrow ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass
class _Moments:
    """Sums over samples x (and y) that HSIC of two linear kernels needs: (C, D), (C,), (D,) and scalars."""

    cross: np.ndarray
    """sum of x y^T."""
    x: np.ndarray
    """sum of x."""
    y: np.ndarray
    x_by_y: np.ndarray
    """sum of x |y|^2."""
    y_by_x: np.ndarray
    norms: float
    """sum of |x|^2 |y|^2."""
    x_norm: float
    """sum of |x|^2."""
    y_norm: float


class LinearCKA:
    """Debiased linear CKA of two sets of features, fed in parts.

    Keeps sums, not samples: three C x C matrices in float64, whatever the number of samples. Sums of several processes
    add up (`state`, `add_state`).
    """

    def __init__(self) -> None:
        self.samples = 0
        self._sums: dict[str, list[np.ndarray]] = {}

    def update(self, first: Tensor, second: Tensor) -> None:
        """Add n samples.

        Args:
            first: (n, C) features of one encoder.
            second: (n, D) features of the other for the same samples.

        Raises:
            ValueError: the numbers of samples differ.
        """
        if len(first) != len(second):
            raise ValueError(f"{len(first)} samples against {len(second)}")
        x, y = first.detach().double(), second.detach().double()
        for key, pair in {"xx": (x, x), "yy": (y, y), "xy": (x, y)}.items():
            sums = [part.cpu().numpy() for part in _sums(*pair)]
            before = self._sums.get(key)
            self._sums[key] = sums if before is None else [a + b for a, b in zip(before, sums, strict=True)]
        self.samples += len(first)

    @property
    def state(self) -> tuple[int, dict[str, list[np.ndarray]]]:
        """Everything counted so far, to be sent to another process."""
        return self.samples, self._sums

    def add_state(self, state: tuple[int, dict[str, list[np.ndarray]]]) -> None:
        """Add what another instance counted."""
        samples, other = state
        self.samples += samples
        for key, sums in other.items():
            before = self._sums.get(key)
            self._sums[key] = sums if before is None else [a + b for a, b in zip(before, sums, strict=True)]

    def value(self) -> float | None:
        """Return CKA: 1 for equal spaces up to rotation and scale, about 0 (also just below) for unrelated ones.

        None with fewer than 4 samples, where the estimator does not exist, or when one side does not vary.
        """
        if self.samples < 4:
            return None
        xx, yy, xy = (_hsic(_Moments(*self._sums[key]), self.samples) for key in ("xx", "yy", "xy"))
        sizes = [_scale(_Moments(*self._sums[key]), self.samples) for key in ("xx", "yy")]
        if min(xx / sizes[0], yy / sizes[1]) < 1e-12:  # rounding of features that are all alike
            return None
        return float(xy / np.sqrt(xx * yy))


def _sums(x: Tensor, y: Tensor) -> list[Tensor]:
    x_norm, y_norm = x.square().sum(dim=1), y.square().sum(dim=1)
    return [
        x.T @ y,
        x.sum(dim=0),
        y.sum(dim=0),
        x.T @ y_norm,
        y.T @ x_norm,
        (x_norm * y_norm).sum(),
        x_norm.sum(),
        y_norm.sum(),
    ]


def _hsic(m: _Moments, n: int) -> float:
    """Return the unbiased HSIC of K = X X^T and L = Y Y^T, their diagonals left out, from sums over samples."""
    trace = float((m.cross**2).sum() - m.norms)
    total_k, total_l = float(m.x @ m.x - m.x_norm), float(m.y @ m.y - m.y_norm)
    rows = float(m.x @ m.cross @ m.y - m.x @ m.x_by_y - m.y @ m.y_by_x + m.norms)
    return (trace + total_k * total_l / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))


def _scale(m: _Moments, n: int) -> float:
    """Return what HSIC would be of features of this length without any mean taken off: the unit of its rounding."""
    return max((float(m.x_norm) / n) ** 2, np.finfo(float).tiny)


def linear_cka(first: Tensor, second: Tensor) -> float | None:
    """Return the debiased linear CKA of (n, C) and (n, D) features; see `LinearCKA`."""
    cka = LinearCKA()
    cka.update(first, second)
    return cka.value()
