"""Retrieval between images and their captions, several captions an image allowed, equal captions known.

Two ways of counting are always given side by side:

- *strict*: a text belongs to the image it was written for, and to no other;
- *text-aware*: a text belongs to every image that has a caption with the same words.

Template captions repeat. Strictly, the right one of five equal texts is found by luck alone; a text-aware count asks
only what can be known. Where no caption repeats both are the same.

Candidates whose cosines differ by less than 1e-6 are tied, and ties are taken in random order: the expected value is
counted, so a model that answers the same for everything reaches chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmovseg.evaluation.retrieval import TIE, cosine

TOP = (1, 5, 10)
_CELLS = 4_000_000  # of the similarity matrix at a time, which bounds the memory


def expected_hits_of_any(similarity: Tensor, positives: Tensor, *, top: Sequence[int]) -> Tensor:
    """Return, for every query, the probability that one of its right candidates is among the first k.

    With b candidates clearly better than the best right one, and m tied with it of which n are right, the first k hold
    r = k - b of the tied ones, drawn at random: 1 - C(m - n, r) / C(m, r).

    Args:
        similarity: (Q, G), larger is nearer.
        positives: (Q, G) bool, at least one a row.
        top: the ks.

    Returns:
        (len(top), Q) float64 in 0..1.

    Raises:
        ValueError: a similarity is NaN, or a query has nothing to find.
    """
    if bool(torch.isnan(similarity).any()):
        raise ValueError("a similarity is NaN")
    if not bool(positives.any(dim=1).all()):
        raise ValueError("a query has no right candidate")
    best = similarity.masked_fill(~positives, float("-inf")).amax(dim=1, keepdim=True)
    lead = similarity - best
    tied = lead.abs() <= TIE
    better = (lead > TIE).sum(dim=1).double()
    right = (tied & positives).sum(dim=1).double()
    others = tied.sum(dim=1).double() - right
    return torch.stack([1.0 - _all_wrong(k - better, right, others) for k in top])


def _all_wrong(drawn: Tensor, right: Tensor, others: Tensor) -> Tensor:
    """Probability that `drawn` of `right` + `others` candidates, taken at random, are all others."""
    total = right + others
    drawn = drawn.clamp(min=0.0).minimum(total)
    possible = drawn <= others
    kept = torch.where(possible, drawn, torch.zeros_like(drawn))  # keeps lgamma away from its poles
    # C(others, r) / C(total, r)
    logarithm = _log_falling(others, kept) - _log_falling(total, kept)
    return torch.where(possible, logarithm.exp(), torch.zeros_like(drawn))


def _log_falling(count: Tensor, steps: Tensor) -> Tensor:
    return torch.lgamma(count + 1.0) - torch.lgamma(count - steps + 1.0)


def caption_recalls(
    images: Tensor, texts: Tensor, owners: Tensor, words: Tensor, *, top: Sequence[int] = TOP
) -> dict[str, float]:
    """Return R@k both ways, their means and their chance, in percent.

    Args:
        images: (N, D) embeddings.
        texts: (T, D) embeddings of all captions of all images.
        owners: (T,) row of `images` that a caption was written for; each image has at least one.
        words: (T,) int64, equal where the captions are.
        top: the ks.

    Returns:
        ``I2T R@k``, ``T2I R@k`` and ``mean recall`` (the plain mean of all of them), the same with ``text-aware`` in
        front, and ``chance mean recall`` of both: what a random order reaches.
    """
    found: dict[str, float] = {}
    for prefix in ("", "text-aware "):
        share, luck = [], []
        for way in ("I2T", "T2I"):
            hits, chance = _recalls(images, texts, owners, words, way=way, by_words=bool(prefix), top=top)
            found |= {f"{prefix}{way} R@{k}": value for k, value in zip(top, hits, strict=True)}
            share += hits
            luck += chance
        found[f"{prefix}mean recall"] = sum(share) / len(share)
        found[f"{prefix}chance mean recall"] = sum(luck) / len(luck)
    return found


def nearest_texts(images: Tensor, texts: Tensor) -> Tensor:
    """Return (N,) int64: of each image (N, D) the row of the nearest text (T, D) by cosine, the first of equal ones."""
    portion = max(1, _CELLS // max(1, len(texts)))
    return torch.cat([cosine(rows, texts).argmax(dim=1) for rows in images.split(portion)])


def _recalls(
    images: Tensor, texts: Tensor, owners: Tensor, words: Tensor, *, way: str, by_words: bool, top: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Return the recalls of one direction and their chance, over the queries in portions."""
    queries, gallery = (images, texts) if way == "I2T" else (texts, images)
    portion = max(1, _CELLS // max(len(images), len(texts)))
    _, words = torch.unique(words, return_inverse=True)
    sums = torch.zeros(2, len(top), dtype=torch.float64)
    for rows in torch.arange(len(queries)).split(portion):
        if way == "I2T":
            positives = _own_texts(rows, owners, words, by_words=by_words)
        else:
            positives = _own_images(rows, owners, words, len(images), by_words=by_words)
        scores = cosine(queries[rows], gallery)
        for total, similarity in zip(sums, (scores, torch.zeros_like(scores)), strict=True):
            total += expected_hits_of_any(similarity, positives, top=top).sum(dim=1)
    hits, chance = (100.0 * sums / len(queries)).tolist()
    return hits, chance


def _own_texts(rows: Tensor, owners: Tensor, words: Tensor, *, by_words: bool) -> Tensor:
    """Return (R, T) bool: which captions are right for each of the images `rows`."""
    own = rows[:, None] == owners[None, :]
    if not by_words:
        return own
    has = torch.zeros(len(rows), int(words.max()) + 1, dtype=torch.bool)
    image, caption = own.nonzero(as_tuple=True)
    has[image, words[caption]] = True
    return has[:, words]


def _own_images(rows: Tensor, owners: Tensor, words: Tensor, count: int, *, by_words: bool) -> Tensor:
    """Return (R, N) bool: which of the N images are right for each of the captions `rows`."""
    found = torch.zeros(len(rows), count, dtype=torch.bool)
    if not by_words:
        found[torch.arange(len(rows)), owners[rows]] = True
        return found
    query, caption = (words[rows][:, None] == words[None, :]).nonzero(as_tuple=True)
    found[query, owners[caption]] = True
    return found
