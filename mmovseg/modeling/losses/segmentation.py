"""Pixel losses."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.layers.conv import resize
from mmovseg.layers.distributed import global_mean_weight

IgnoredPixels = Literal["exclude", "negative"]


def pixel_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Softmax cross-entropy over the classes asked for (paper Sec. 3.2.3).

    Logits are resized bilinearly to the label grid. Pixels of 255 have no influence and no gradient; the mean is over
    the labelled pixels of all ranks, so that N processes give the loss of one process with the whole batch. Without any
    labelled pixel the loss is 0.

    Args:
        logits: (N, K, h, w).
        target: (N, H, W) int64 in 0..K-1, 255 = ignore.

    Returns:
        0-d loss, natural logarithm.
    """
    logits = resize(logits, (target.shape[-2], target.shape[-1])).float()
    total = F.cross_entropy(logits, target, ignore_index=IGNORE_LABEL, reduction="sum")
    return total / global_mean_weight((target != IGNORE_LABEL).sum())


def pixel_binary_cross_entropy(logits: Tensor, target: Tensor, *, ignored_pixels: IgnoredPixels) -> Tensor:
    """Binary cross-entropy of every class by itself against one-hot labels (MM-OVSeg release).

    Logits are resized bilinearly to the label grid. The mean is over pixels and classes of all ranks.

    Args:
        logits: (N, K, h, w).
        target: (N, H, W) int64 in 0..K-1, 255 = ignore.
        ignored_pixels: what a pixel of 255 means. ``exclude``: nothing, it has no influence and no gradient.
            ``negative``: it is none of the classes, so all K scores are pushed down there. That is how the released
            models were trained; beware that with labels of the seen classes alone it teaches that pixels of unseen
            classes are background.

    Returns:
        0-d loss, natural logarithm; 0 when no pixel counts.
    """
    logits = resize(logits, (target.shape[-2], target.shape[-1])).float()
    classes = torch.arange(logits.shape[1], device=target.device)
    truth = (target[:, None] == classes[:, None, None]).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(dim=1)
    counted = target != IGNORE_LABEL if ignored_pixels == "exclude" else torch.ones_like(target, dtype=torch.bool)
    return (losses * counted).sum() / (logits.shape[1] * global_mean_weight(counted.sum()))
