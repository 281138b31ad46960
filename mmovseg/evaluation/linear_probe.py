"""A linear classifier on frozen patch features: what land cover an encoder's patches tell without further training.

Multinomial logistic regression. A patch covers many pixels, so its target is the share of each class in it; the loss is
then the cross-entropy of every labelled pixel when each pixel takes the scores of its patch. The problem is convex: the
result depends on the features, not on a seed, a learning rate or the order of the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.errors import UserError
from mmovseg.evaluation.confusion import sum_over_processes

L2 = 1e-4
MAX_ITERATIONS = 200

_CHUNK = 65_536  # patches a matrix product takes at once
_GRADIENT_TOLERANCE = 1e-5  # per entry of the gradient in the coordinates of `_Problem.basis`
_SAME = 1e-6  # a channel whose spread is below this share of its size is constant


@dataclass(frozen=True)
class LinearProbe:
    """A trained probe: scores = x @ weight + bias for raw features x.

    weight: (C, K) float64. bias: (K,) float64.
    loss: mean cross-entropy of the training pixels in nats, without the penalty.
    iterations: of L-BFGS. converged: whether the gradient vanished before they were used up.
    """

    weight: Tensor
    bias: Tensor
    loss: float
    iterations: int
    converged: bool

    def scores(self, maps: Tensor) -> Tensor:
        """(C, h, w) features -> (K, h, w) float32 scores."""
        flat = maps.flatten(1).to(self.weight)
        return (self.weight.T @ flat + self.bias[:, None]).unflatten(1, maps.shape[1:]).float()

    def predict(self, maps: Tensor, *, patch_size: int, view: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Return the class of every pixel of an image.

        Args:
            maps: (C, h, w) features.
            patch_size: pixels of the encoder's input that a patch spans; the map may reach beyond the input (padding).
            view: height and width of the encoder's input without padding.
            size: height and width of the labels. Scores are brought there bilinearly.

        Returns:
            (height, width) int64.
        """
        height, width = (side * patch_size for side in maps.shape[1:])
        scores = F.interpolate(self.scores(maps)[None], size=(height, width), mode="bilinear", align_corners=False)
        scores = scores[..., : view[0], : view[1]]
        if tuple(scores.shape[-2:]) != tuple(size):
            scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        return scores[0].argmax(dim=0)


def patch_class_counts(labels: Tensor, *, num_classes: int, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Count the labelled pixels of each class in each patch.

    Args:
        labels: (H, W) integers at the size of the encoder's input, 255 = not labelled.
        num_classes: K.
        patch_size: pixels a patch spans.
        grid: rows and columns of patches; what of it lies beyond the labels holds no pixel.

    Returns:
        (h, w, K) float32 counts.

    Raises:
        ValueError: the grid does not cover the labels.
    """
    height, width = (side * patch_size for side in grid)
    bottom, right = height - labels.shape[0], width - labels.shape[1]
    if min(bottom, right) < 0:
        raise ValueError(f"labels of {tuple(labels.shape)} do not fit into {grid} patches of {patch_size} pixels")
    padded = F.pad(labels.long(), (0, right, 0, bottom), value=IGNORE_LABEL)
    known = padded != IGNORE_LABEL
    one_hot = F.one_hot(padded.masked_fill(~known, 0), num_classes) * known[..., None]
    cells = one_hot.unflatten(1, (grid[1], patch_size)).unflatten(0, (grid[0], patch_size))
    return cells.sum(dim=(1, 3)).float()


def fit_linear_probe(
    features: Sequence[Tensor],
    counts: Sequence[Tensor],
    *,
    channels: int,
    num_classes: int,
    l2: float = L2,
    max_iterations: int = MAX_ITERATIONS,
    device: torch.device | str = "cpu",
) -> LinearProbe:
    """Fit the probe on the patches of all processes. Every process must call it and gets the same probe.

    Features are standardised with the mean and spread of the labelled training patches, so that the penalty means the
    same for every encoder; a channel that does not vary is left out. The loss is the mean over pixels of the
    cross-entropy plus ``l2 / 2`` times the squared weights (not the bias).

    Args:
        features: (n, C) parts of this process, possibly none.
        counts: (n, K) labelled pixels by class (`patch_class_counts`), one part for each of `features`.
        channels: C.
        num_classes: K.
        l2: penalty. It only has to keep the weights finite: MiniEarth has about 1000 patches for each weight.
        max_iterations: of L-BFGS.
        device: where to compute, in float64.

    Raises:
        UserError: no training patch has a label.
        ValueError: a feature is not finite.
    """
    x = torch.cat([part.reshape(-1, channels) for part in features] or [torch.zeros(0, channels)])
    y = torch.cat([part.reshape(-1, num_classes) for part in counts] or [torch.zeros(0, num_classes)])
    labelled = y.sum(dim=1) > 0
    problem = _Problem(x[labelled], y[labelled], l2=l2, device=torch.device(device))
    parameters = torch.zeros(channels + 1, num_classes, dtype=torch.float64, device=device, requires_grad=True)
    basis = problem.basis()
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        loss, gradient = problem.evaluate(basis @ parameters.detach())
        parameters.grad = basis.T @ gradient
        return loss

    optimizer.step(closure)
    solution = basis @ parameters.detach()
    penalised, gradient = problem.evaluate(solution)
    weight = solution[:-1] * problem.inverse_std[:, None]
    return LinearProbe(
        weight=weight.cpu(),
        bias=(solution[-1] - problem.mean @ weight).cpu(),
        loss=float(penalised) - 0.5 * l2 * float(solution[:-1].square().sum()),
        iterations=int(optimizer.state[parameters]["n_iter"]),
        converged=bool((basis.T @ gradient).abs().max() <= 10 * _GRADIENT_TOLERANCE),
    )


class _Problem:
    """Loss and gradient over the patches of all processes, which exchange sums, never features."""

    def __init__(self, x: Tensor, y: Tensor, *, l2: float, device: torch.device) -> None:
        """x: (n, C) features. y: (n, K) labelled pixels by class."""
        if not bool(torch.isfinite(x).all()):
            raise ValueError("the encoder's features hold a value that is not finite")
        self._x, self._y, self._l2, self._device = x.to(device), y.to(device), l2, device
        weights = self._y.double().sum(dim=1)
        total = self._reduced(torch.cat([weights.sum()[None], self._weighted_sum(weights, square=False)]))
        self._pixels = total[0]
        if not float(self._pixels):
            raise UserError("the linear probe has no labelled patch to learn from; check the labels of its images")
        self.mean = total[1:] / self._pixels
        variance = self._reduced(self._weighted_sum(weights, square=True)) / self._pixels
        std = variance.sqrt()
        varies = std > _SAME * self.mean.abs().clamp_min(1e-30)
        self.inverse_std = torch.where(varies, 1 / std.clamp_min(1e-300), torch.zeros_like(std))

    def evaluate(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the penalised loss and its gradient at (C + 1, K) parameters of standardised features."""
        weight, bias = parameters[:-1], parameters[-1]
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        gradient = torch.zeros_like(parameters)
        for x, y in self._chunks():
            log_shares = (x @ weight + bias).log_softmax(dim=1)
            loss -= (y * log_shares).sum()
            residual = log_shares.exp() * y.sum(dim=1, keepdim=True) - y
            gradient[:-1] += x.T @ residual
            gradient[-1] += residual.sum(dim=0)
        total = self._reduced(torch.cat([loss[None], gradient.flatten()])) / self._pixels
        loss, gradient = total[0], total[1:].view_as(parameters)
        gradient[:-1] += self._l2 * weight
        return loss + 0.5 * self._l2 * weight.square().sum(), gradient

    def basis(self) -> Tensor:
        """Return (C + 1, C + 1) coordinates in which the loss curves about alike in all directions.

        The curvature of the cross-entropy is at most half the second moment of the features (Boehning, 1992), so its
        inverse square root, from a Cholesky factor, makes L-BFGS converge in tens of steps and not in hundreds. Only
        the way to the minimum changes, not the minimum.
        """
        size = self._x.shape[1]
        moment = torch.zeros(size, size, dtype=torch.float64, device=self._device)
        for x, y in self._chunks():
            moment += (x * y.sum(dim=1, keepdim=True)).T @ x
        curvature = 0.5 * self._reduced(moment) / self._pixels
        curvature.diagonal().add_(max(self._l2, 1e-9))
        whole = torch.eye(size + 1, dtype=torch.float64, device=self._device)
        whole[:-1, :-1] = torch.linalg.inv(torch.linalg.cholesky(curvature)).T
        return whole

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield standardised features and counts in float64, which would be twice the memory if it were kept."""
        for start in range(0, len(self._x), _CHUNK):
            x = self._x[start : start + _CHUNK].double()
            yield (x - self.mean) * self.inverse_std, self._y[start : start + _CHUNK].double()

    def _weighted_sum(self, weights: Tensor, *, square: bool) -> Tensor:
        """Sum over patches of x, or of (x - mean)^2, each patch as often as it has labelled pixels."""
        total = torch.zeros(self._x.shape[1], dtype=torch.float64, device=self._device)
        for start in range(0, len(self._x), _CHUNK):
            x = self._x[start : start + _CHUNK].double()
            part = (x - self.mean).square() if square else x
            total += weights[start : start + _CHUNK] @ part
        return total

    def _reduced(self, local: Tensor) -> Tensor:
        """Return the sum over processes, equal to the bit on all of them."""
        return torch.from_numpy(sum_over_processes(local.cpu().numpy())).to(self._device)


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (H, W) labels or masks at another size, each pixel taking its nearest one."""
    if tuple(labels.shape) == tuple(size):
        return labels
    rows, columns = (
        torch.from_numpy(((np.arange(new) + 0.5) * old / new).astype(np.int64))
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows][:, columns]
