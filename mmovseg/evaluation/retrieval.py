"""Is the nearest one the right one: scenes among scenes, and patches among the patches of their scene.

Two unit vectors whose cosines differ by less than `TIE` cannot be told apart with float32 features, so they are tied.
Among tied candidates the order is taken as random and the expected value is counted: an encoder that answers the same
for every image reaches chance, not 0 and not 100 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TIE = 1e-6


def expected_hits(similarity: Tensor, *, top: Sequence[int], truth: Tensor | None = None) -> Tensor:
    """Return, for every query, the probability that the right candidate is among the first k.

    With b candidates clearly better than the right one and t tied with it, its place is b + 1 .. b + t + 1, each as
    likely: the probability is (k - b) / (t + 1), limited to 0 .. 1.

    Args:
        similarity: (Q, G), larger is nearer; rows are queries.
        top: the ks, each at least 1.
        truth: (Q,) column of the right candidate; None means that row i belongs to column i.

    Returns:
        (len(top), Q) float64 in 0..1.

    Raises:
        ValueError: a similarity is NaN, or there are more queries than candidates and `truth` is None.
    """
    queries, candidates = similarity.shape
    if truth is None:
        if queries > candidates:
            raise ValueError(f"{queries} queries have only {candidates} candidates")
        truth = torch.arange(queries, device=similarity.device)
    if bool(torch.isnan(similarity).any()):
        raise ValueError("a similarity is NaN")
    lead = similarity - similarity.gather(1, truth[:, None])
    better = (lead > TIE).sum(dim=1).double()
    tied = (lead.abs() <= TIE).sum(dim=1).double()  # counts the right one too
    return torch.stack([((k - better) / tied).clamp(0.0, 1.0) for k in top])


def recall_at(queries: Tensor, gallery: Tensor, *, top: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Return R@k in percent: how often query i finds gallery entry i among its k nearest by cosine.

    Args:
        queries, gallery: (N, C), row i of both from one scene; any length, a zero vector has cosine 0 with everything.
        top: the ks.

    Raises:
        ValueError: the shapes differ, there is no scene, or a feature is NaN.
    """
    if queries.shape != gallery.shape or not len(queries):
        raise ValueError(f"need pairs to retrieve, got {tuple(queries.shape)} and {tuple(gallery.shape)}")
    hits = expected_hits(cosine(queries, gallery), top=top)
    return {k: 100.0 * float(row.mean()) for k, row in zip(top, hits, strict=True)}


def chance_recall(size: int, *, top: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Return R@k in percent of a random order of `size` scenes: k / size."""
    return {k: 100.0 * min(k, size) / size for k in top}


def patch_hits(queries: Tensor, targets: Tensor) -> tuple[float, int]:
    """Count the patches of one image whose own counterpart is the nearest of all patches of the same image.

    Args:
        queries, targets: (n, C), row i of both at the same place.

    Returns:
        (expected number of hits, n). Chance is 1 hit an image, whatever n.
    """
    if not len(queries):
        return 0.0, 0
    return float(expected_hits(cosine(queries, targets), top=(1,)).sum()), len(queries)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the (N, M) cosines of the rows of (N, C) and (M, C) in float64."""
    return F.normalize(first.double(), dim=1) @ F.normalize(second.double(), dim=1).T
