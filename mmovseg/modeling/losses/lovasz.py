"""The Lovász-softmax loss: a surrogate of the Jaccard index that can be descended."""

from __future__ import annotations

import torch
from torch import Tensor

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.layers.conv import resize


def lovasz_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """Lovász-softmax over all labelled pixels of the batch (Berman et al., CVPR 2018, Eq. 11 and 12).

    For class c the errors are e_i = 1 - p_i(c) where the label is c and p_i(c) elsewhere. In descending order of the
    errors, with n_c pixels of the class,

        L_c = sum_i e_(i) (J_i - J_(i-1)),   J_i = 1 - (n_c - hits_i) / (n_c + i - hits_i),   J_0 = 0,

    hits_i being the pixels of class c among the first i. For hard predictions L_c is 1 - IoU of the class. The loss is
    the mean over the classes that are present in the labels.

    Logits are resized bilinearly to the label grid. Pixels of 255 have no influence and no gradient. In a group of
    processes each takes its own pixels: the index of several batches is no mean of theirs.

    Args:
        logits: (N, K, h, w).
        target: (N, H, W) int64 in 0..K-1, 255 = ignore.

    Returns:
        0-d loss in [0, 1]; 0, but in the graph, without any labelled pixel.
    """
    probabilities = resize(logits, (target.shape[-2], target.shape[-1])).float().softmax(dim=1)
    kept = target != IGNORE_LABEL
    scores = probabilities.movedim(1, 0)[:, kept]  # (K, L)
    if scores.shape[1] == 0:
        return 0.0 * logits.sum()
    present = torch.unique(target[kept])
    truth = target[kept] == present[:, None]  # (classes present, L)
    errors, order = (truth.to(scores.dtype) - scores[present]).abs().sort(dim=1, descending=True)
    steps = _jaccard_steps(truth.gather(1, order))
    return (errors * steps).sum(dim=1).mean()


@torch.no_grad()
def _jaccard_steps(truth: Tensor) -> Tensor:
    """Return J_i - J_(i-1) of (classes, L) memberships, float32; differences of nearly equal numbers need doubles."""
    hits = truth.cumsum(dim=1, dtype=torch.float64)
    total = hits[:, -1:]
    count = torch.arange(1, truth.shape[1] + 1, device=truth.device, dtype=torch.float64)
    loss = 1.0 - (total - hits) / (total + count - hits)
    return torch.diff(loss, dim=1, prepend=torch.zeros_like(total)).float()
