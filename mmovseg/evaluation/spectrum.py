"""How many directions of its space an encoder uses: singular values of its features, and their effective rank.

Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007): the exponential of the entropy of
the singular values, taken as shares of their sum. It is 1 when all features lie on one line and the number of channels
when they spread alike in all directions; it falls when an encoder collapses, whatever the scale of its features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

_ROUNDING = 1e-12  # of the squared length of the features: what is left of equal ones when their mean is taken off


@dataclass(frozen=True)
class Moments:
    """Sums over n features of C channels: their number, `total` (C,) and `products` (C, C), both float64.

    Sums of several parts or processes add up; the features themselves are not kept.
    """

    samples: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Return the sums over (n, C) features."""
        x = features.detach().double()
        return cls(len(x), x.sum(dim=0).cpu().numpy(), (x.T @ x).cpu().numpy())

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.samples + other.samples, self.total + other.total, self.products + other.products)


def singular_values(moments: Moments) -> np.ndarray | None:
    """Return the singular values of the (n, C) features less their mean, largest first; None when all are alike.

    They come from the C x C covariance, so those below 1e-8 of the largest are rounding.
    """
    if moments.samples < 2:
        return None
    centred = moments.products - np.outer(moments.total, moments.total) / moments.samples
    squares = np.linalg.eigvalsh(centred)[::-1]
    if squares[0] <= _ROUNDING * np.trace(moments.products):
        return None
    return np.sqrt(np.clip(squares, 0, None))


def effective_rank(moments: Moments) -> float | None:
    """Return the effective rank of centred features, 1 to C; None when they do not vary."""
    values = singular_values(moments)
    return None if values is None else rank_of_values(values)


def rank_of_values(values: np.ndarray) -> float:
    """Return the exponential of the entropy of singular values as shares of their sum; at least one is above 0."""
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
