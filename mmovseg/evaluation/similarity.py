"""Centred kernel alignment (CKA): how alike two feature spaces are, up to rotation and scale.

Kornblith et al., "Similarity of neural network representations revisited" (2019), with the unbiased estimator of HSIC
by Song et al., "Feature selection via dependence maximization" (2012), eq. 5. The plain estimate of unrelated features
grows with channels / samples; this one is 0 on average, so that few samples and wide encoders compare with many and
narrow ones.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mmovseg.evaluation.spectrum import Moments


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
        pairs = {"xx": (x, x), "yy": (y, y), "xy": (x, y)}
        self.add_state((len(x), {key: [part.cpu().numpy() for part in _sums(*pair)] for key, pair in pairs.items()}))

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

    def moments(self, side: int) -> Moments | None:
        """Return the sums over the features of one side, 0 = first, 1 = second; None before the first sample."""
        sums = self._sums.get(("xx", "yy")[side])
        return None if sums is None else Moments(self.samples, total=sums[1], products=sums[0])

    def value(self) -> float | None:
        """Return CKA: 1 for equal spaces up to rotation and scale, about 0 (also just below) for unrelated ones.

        None with fewer than 4 samples, where the estimator does not exist, or when one side does not vary.
        """
        if self.samples < 4:
            return None
        xx, yy, xy = (_hsic(self._sums[key], self.samples) for key in ("xx", "yy", "xy"))
        sizes = [_scale(self._sums[key], self.samples) for key in ("xx", "yy")]
        if min(xx / sizes[0], yy / sizes[1]) < 1e-12:  # rounding of features that are all alike
            return None
        return float(xy / np.sqrt(xx * yy))


def _sums(x: Tensor, y: Tensor) -> list[Tensor]:
    """Return the sums over samples that HSIC of the kernels X X^T and Y Y^T needs, in the order of `_hsic`."""
    x_norm, y_norm = x.square().sum(dim=1), y.square().sum(dim=1)
    vectors = [x.sum(dim=0), y.sum(dim=0), x.T @ y_norm, y.T @ x_norm]
    return [x.T @ y, *vectors, (x_norm * y_norm).sum(), x_norm.sum(), y_norm.sum()]


def _hsic(sums: list[np.ndarray], n: int) -> float:
    """Return the unbiased HSIC of X X^T and Y Y^T with their diagonals left out."""
    cross, x, y, x_by_y, y_by_x, norms, x_norm, y_norm = sums
    trace = (cross**2).sum() - norms
    totals = (x @ x - x_norm) * (y @ y - y_norm)
    rows = x @ cross @ y - x @ x_by_y - y @ y_by_x + norms
    return float((trace + totals / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3)))


def _scale(sums: list[np.ndarray], n: int) -> float:
    """Return what HSIC would be of features of this length without any mean taken off: the unit of its rounding."""
    return max((float(sums[-1]) / n) ** 2, float(np.finfo(float).tiny))
