"""A linear classifier on frozen patch features: what land cover an encoder's patches tell without further training.

Multinomial logistic regression. A patch covers many pixels, so its target is the share of each class in it; the loss is
then the cross-entropy of every labelled pixel when each pixel takes the scores of its patch. The problem is convex: the
result depends on the features, not on a seed, a learning rate or the order of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
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

_GRADIENT_TOLERANCE = 1e-4  # per entry, in the coordinates of `_Problem.basis`; a tenth moves no mIoU by 0.01
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

    def predict(
        self,
        maps: Tensor,
        *,
        patch_size: int,
        view: tuple[int, int],
        size: tuple[int, int],
        covered: Tensor | None = None,
    ) -> Tensor:
        """Return the class of every pixel of an image.

        Args:
            maps: (C, h, w) features.
            patch_size: pixels of the encoder's input that a patch spans; the map may reach beyond the input (padding).
            view: height and width of the encoder's input without padding.
            size: height and width of the labels. Scores are brought there bilinearly.
            covered: (h, w) bool, False for patches without data, whose scores are kept from their neighbours' pixels;
                None = all have data.

        Returns:
            (height, width) int64.
        """
        full = (maps.shape[1] * patch_size, maps.shape[2] * patch_size)
        scores = self.scores(maps)[None]
        if covered is None or bool(covered.all()):
            scores = _enlarge(scores, full)
        else:
            weight = covered[None, None].to(scores)
            scores = _enlarge(scores * weight, full) / _enlarge(weight, full).clamp_min(1e-6)
        return _enlarge(scores[..., : view[0], : view[1]], size)[0].argmax(dim=0)


def _enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


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

    It takes 8 bytes a patch and channel of memory, twice that for a moment.

    Args:
        features: (n, C) parts of this process, possibly none.
        counts: (n, K) labelled pixels by class (`patch_class_counts`), one part for each of `features`.
        channels: C.
        num_classes: K.
        l2: penalty, which only has to keep the weights finite. From 400 scenes of MiniEarth, 200 patches a weight, all
            values up to the default give the same mIoU of the shipped SAR encoder on val to 0.01, 1e-2 loses 0.7.
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
    optimizer = _optimizer(parameters, max_iterations)

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


def _optimizer(parameters: Tensor, max_iterations: int) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(
        [parameters],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )


class _Problem:
    """Loss and gradient over the patches of all processes, which exchange sums, never features."""

    def __init__(self, x: Tensor, y: Tensor, *, l2: float, device: torch.device) -> None:
        """x: (n, C) features, changed to float64 and standardised. y: (n, K) labelled pixels by class."""
        if not bool(torch.isfinite(x).all()):
            raise ValueError("the encoder's features hold a value that is not finite")
        self._x, self._y, self._l2, self._device = x.to(device).double(), y.to(device).double(), l2, device
        self._weights = self._y.sum(dim=1)
        total = self._reduced(torch.cat([self._weights.sum()[None], self._weights @ self._x]))
        self._pixels = total[0]
        if not float(self._pixels):
            raise UserError("the linear probe has no labelled patch to learn from; check the labels of its images")
        self.mean = total[1:] / self._pixels
        self._x -= self.mean
        std = (self._reduced(self._weights @ self._x.square()) / self._pixels).sqrt()
        varies = std > _SAME * self.mean.abs().clamp_min(1e-30)
        self.inverse_std = torch.where(varies, 1 / std.clamp_min(1e-300), torch.zeros_like(std))
        self._x *= self.inverse_std

    def evaluate(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the penalised loss and its gradient at (C + 1, K) parameters of standardised features."""
        weight, bias = parameters[:-1], parameters[-1]
        log_shares = (self._x @ weight + bias).log_softmax(dim=1)
        loss = -(self._y * log_shares).sum()
        residual = log_shares.exp_() * self._weights[:, None] - self._y
        # (K, n) @ (n, C): the other way round takes twice to ten times as long on CPUs
        gradient = torch.cat([(residual.T @ self._x).T, residual.sum(dim=0)[None]])
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
        moment = self._reduced(self._x.T @ (self._x * self._weights[:, None])) / self._pixels
        moment.mul_(0.5).diagonal().add_(max(self._l2, 1e-9))
        whole = torch.eye(size + 1, dtype=torch.float64, device=self._device)
        whole[:-1, :-1] = torch.linalg.inv(torch.linalg.cholesky(moment)).T
        return whole

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
