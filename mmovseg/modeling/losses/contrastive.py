"""Losses that bring two views of the same places together."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmovseg.layers.distributed import global_mean_weight

OTHER_BATCH = -1
"""Group of keys that belong to no image of the batch (a queue)."""


def info_nce(
    queries: Tensor,
    keys: Tensor,
    positives: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.07,
    query_groups: Tensor | None = None,
    key_groups: Tensor | None = None,
    row_chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE (paper Sec. 3.2.2): each query must pick its positive among all keys.

    L = mean_i -log( exp(q_i . k_p(i) / tau) / sum_j exp(q_i . k_j / tau) ), q and k of unit length. The denominator
    holds the positive and the negatives: all other keys, or with groups those of other groups only.

    Args:
        queries: (L, C) embeddings, any length; L may be 0.
        keys: (M, C) embeddings, any length. Detach them to keep gradients out.
        positives: (L,) int64, which key belongs to each query; None = the key of the same number.
        temperature: tau > 0, or a 0-d tensor that learns.
        query_groups, key_groups: (L,) and (M,) int64, for example the image that a patch is from. Keys of a query's own
            group are then no negatives. `OTHER_BATCH` as a key's group is always a negative.
        row_chunk: compute this many rows of the (L, M) score matrix at a time and again in the backward pass, so that
            no more of it than these rows is ever in memory; None = all.

    Returns:
        The 0-d loss, in a group of processes scaled so that DDP's average is the mean over all queries; 0 without
        queries. And the share of queries whose positive scores best, in [0, 1], a tie of n counting 1/n; NaN without
        queries. With all keys equal the loss is log(M) and the share 1/M; with one key alone 0 and 1.

    Raises:
        ValueError: there are queries but no keys, the lengths C differ, or only one of the groups is given.
    """
    if (query_groups is None) != (key_groups is None):
        raise ValueError("query_groups and key_groups come together")
    if queries.shape[1:] != keys.shape[1:] or (len(queries) > 0 and len(keys) == 0):
        raise ValueError(f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)} do not fit together")
    if positives is None:
        positives = torch.arange(len(queries), device=queries.device)
    queries = F.normalize(queries, dim=1) / temperature
    keys = F.normalize(keys, dim=1)
    losses, hits = [queries.new_zeros(0).float()], [queries.new_zeros(0).float()]
    numbers = torch.arange(len(queries), device=queries.device)
    for rows in numbers.split(row_chunk or len(queries)) if len(queries) else ():
        groups = query_groups[rows] if query_groups is not None else None
        arguments = (queries[rows], keys, positives[rows], groups, key_groups)
        if row_chunk is not None and torch.is_grad_enabled():
            loss, hit = checkpoint(_score_rows, *arguments, use_reentrant=False)
        else:
            loss, hit = _score_rows(*arguments)
        losses.append(loss)
        hits.append(hit)
    return _mean(torch.cat(losses), queries, keys), torch.cat(hits).mean()


def _score_rows(
    queries: Tensor, keys: Tensor, positives: Tensor, query_groups: Tensor | None, key_groups: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy (n,) of n rows, and what each counts as a hit."""
    scores = (queries @ keys.T).float()
    if query_groups is not None and key_groups is not None:
        own = query_groups[:, None] == key_groups[None]
        own[torch.arange(len(own), device=own.device), positives] = False
        scores = scores.masked_fill(own, float("-inf"))
    loss = F.cross_entropy(scores, positives, reduction="none")
    with torch.no_grad():
        best = scores.amax(dim=1, keepdim=True)
        right = scores.gather(1, positives[:, None]) == best
        hit = right[:, 0].float() / (scores == best).sum(dim=1)
    return loss, hit


def patch_regression(student: Tensor, teacher: Tensor, *, norm: Literal["l1", "mse"]) -> Tensor:
    """Distance of paired unit-length vectors: ``l1`` sum of absolute, ``mse`` sum of squared differences over channels.

    Args:
        student: (L, C), L may be 0. teacher: (L, C), no gradient flows into it.
        norm: which distance.

    Returns:
        0-d mean over the L pairs, scaled as in `info_nce`; 0 without pairs. The squared one is 2 - 2 cos, in [0, 4].
    """
    difference = F.normalize(student, dim=1) - F.normalize(teacher.detach(), dim=1)
    return _mean((difference.abs() if norm == "l1" else difference.square()).sum(dim=1).float(), student)


def _mean(values: Tensor, *inputs: Tensor) -> Tensor:
    """Mean over the values of all processes; without values 0, yet in the graph, since other processes wait for it."""
    weight = global_mean_weight(torch.tensor(float(len(values)), device=values.device))
    return values.sum() / weight if len(values) else torch.stack([0.0 * x.sum() for x in inputs]).sum()
