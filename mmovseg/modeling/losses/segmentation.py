"""Pixel losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.layers.conv import resize
from mmovseg.layers.distributed import global_mean_weight


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
