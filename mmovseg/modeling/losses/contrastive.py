"""Losses that bring two views of the same places together."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_info_nce(student: Tensor, teacher: Tensor, *, temperature: float = 0.07) -> tuple[Tensor, Tensor]:
    """InfoNCE of paired patches (paper Sec. 3.2.2): each student patch must pick its own teacher patch among all.

    L = mean_i -log( exp(s_i . t_i / tau) / sum_j exp(s_i . t_j / tau) ), s and t of unit length. The denominator
    holds the positive and all other teacher patches of the batch as negatives.

    Args:
        student: (L, C) embeddings, any length.
        teacher: (L, C) embeddings of the same places; no gradient flows into them.
        temperature: tau > 0.

    Returns:
        The 0-d loss, and the share of student patches whose own teacher patch is the nearest, in [0, 1].

    Raises:
        ValueError: the shapes differ, or there are no patches.
    """
    if student.shape != teacher.shape or len(student) == 0:
        raise ValueError(
            f"student and teacher need the same non-empty shape, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    scores = F.normalize(student, dim=1) @ F.normalize(teacher.detach(), dim=1).T / temperature
    target = torch.arange(len(scores), device=scores.device)
    accuracy = (scores.detach().argmax(dim=1) == target).float().mean()
    return F.cross_entropy(scores.float(), target), accuracy


def patch_regression(student: Tensor, teacher: Tensor, *, norm: Literal["l1", "mse"]) -> Tensor:
    """Distance of paired unit-length patches: ``l1`` sum of absolute, ``mse`` sum of squared differences over channels.

    Args:
        student: (L, C). teacher: (L, C), no gradient flows into it.
        norm: which distance.

    Returns:
        0-d mean over patches; the squared one is 2 - 2 cos, in [0, 4].
    """
    difference = F.normalize(student, dim=1) - F.normalize(teacher.detach(), dim=1)
    return (difference.abs() if norm == "l1" else difference.square()).sum(dim=1).mean()
