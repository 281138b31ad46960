"""BLEU-1..4, ROUGE-L and CIDEr-D of generated captions, of our own, on words from `split_words`.

Sources: BLEU (Papineni et al., ACL 2002), ROUGE-L (Lin, 2004), CIDEr-D (Vedantam et al., CVPR 2015), each with the
constants of the caption evaluation of MS COCO (Chen et al., arXiv 1504.00325), with which the optional test compares
them. All three are 0..1 but for CIDEr-D, which is 0..10; reports multiply by 100 as is usual.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ORDER = 4
ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0
# COCO's: a share without any match counts as this much, and a caption too short for an n-gram divides by no zero.
_NO_MATCH, _NO_GRAM = 1e-15, 1e-9

Words = Sequence[str]
Gram = tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """A metric of a whole test set and of each of its images, in the order given."""

    corpus: float
    images: tuple[float, ...]


def ngrams(words: Words, order: int) -> Counter[Gram]:
    """Count the runs of `order` words."""
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[Scores]:
    """Return BLEU-1 .. BLEU-4.

    The corpus figure is taken from n-grams summed over all images, and so differs from the mean over images. The
    brevity penalty uses, image by image, the reference nearest in length to the candidate, the shorter one of two.

    Args:
        candidates: one caption an image.
        references: at least one caption an image.

    Returns:
        Four `Scores` in 0..1; BLEU-n is the geometric mean of the precisions of orders 1..n.

    Raises:
        ValueError: the lists differ in length, are empty, or an image has no reference.
    """
    _check(candidates, references)
    matched, total = [0] * MAX_ORDER, [0] * MAX_ORDER
    lengths, wanted = 0, 0
    images: list[list[float]] = []
    for candidate, own in zip(candidates, references, strict=True):
        hits = [_clipped_matches(candidate, own, order) for order in range(1, MAX_ORDER + 1)]
        counts = [max(0, len(candidate) - order + 1) for order in range(1, MAX_ORDER + 1)]
        nearest = min((abs(len(reference) - len(candidate)), len(reference)) for reference in own)[1]
        images.append(_bleu_of(hits, counts, len(candidate), nearest))
        matched = [a + b for a, b in zip(matched, hits, strict=True)]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        lengths, wanted = lengths + len(candidate), wanted + nearest
    corpus = _bleu_of(matched, total, lengths, wanted)
    return [Scores(corpus[order], tuple(row[order] for row in images)) for order in range(MAX_ORDER)]


def _clipped_matches(candidate: Words, references: Sequence[Words], order: int) -> int:
    """Count n-grams of the candidate, each at most as often as the reference that has it most often."""
    most: Counter[Gram] = Counter()
    for reference in references:
        most |= ngrams(reference, order)
    return sum((ngrams(candidate, order) & most).values())


def _bleu_of(matched: Sequence[int], total: Sequence[int], length: int, wanted: int) -> list[float]:
    product, values = 1.0, []
    ratio = (length + _NO_MATCH) / (wanted + _NO_GRAM)
    # exp(1 - 1/ratio) underflows to 0 for an empty candidate
    brevity = math.exp(1.0 - 1.0 / ratio) if ratio < 1.0 else 1.0
    for order, (hits, count) in enumerate(zip(matched, total, strict=True), start=1):
        product *= (hits + _NO_MATCH) / (count + _NO_GRAM)
        values.append(product ** (1.0 / order) * brevity)
    return values


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scores:
    """Return ROUGE-L: the F measure (beta 1.2) of the longest common subsequence.

    Precision and recall are each the best over the references of an image, which need not be the same one; the corpus
    figure is the mean over images.

    Args and errors: as for `bleu`.
    """
    _check(candidates, references)
    images = []
    for candidate, own in zip(candidates, references, strict=True):
        common = [longest_common_subsequence(candidate, reference) for reference in own]
        precision = max(common) / max(len(candidate), 1)
        recall = max(count / max(len(reference), 1) for count, reference in zip(common, own, strict=True))
        images.append(_f_measure(precision, recall))
    return Scores(sum(images) / len(images), tuple(images))


def _f_measure(precision: float, recall: float) -> float:
    if precision == 0.0 or recall == 0.0:
        return 0.0
    weight = ROUGE_BETA**2
    return (1.0 + weight) * precision * recall / (recall + weight * precision)


def longest_common_subsequence(first: Words, second: Words) -> int:
    """Return the length of the longest sequence of words that both have in this order, gaps allowed."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scores:
    """Return CIDEr-D: cosines of TF-IDF vectors of 1- to 4-grams, clipped, with a penalty for another length.

    How rare an n-gram is, is counted in the references of this very test set (in how many images' references it is),
    so the figure depends on the set and is 0 for a single image. The penalty's length is the number of bigrams, as in
    COCO's code.

    Args and errors: as for `bleu`.

    Returns:
        `Scores` in 0..10: ten times the mean over orders and references; the corpus figure is the mean over images.
    """
    _check(candidates, references)
    seen_in: Counter[Gram] = Counter()
    for own in references:
        seen_in.update({gram for reference in own for order in _ORDERS for gram in ngrams(reference, order)})
    log_images = math.log(len(references))
    idf = {gram: log_images - math.log(count) for gram, count in seen_in.items()}
    images = []
    for candidate, own in zip(candidates, references, strict=True):
        vectors = _weighted(candidate, idf, log_images)
        total = 0.0
        for reference in own:
            others = _weighted(reference, idf, log_images)
            distance = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
            penalty = math.exp(-(distance**2) / (2.0 * CIDER_SIGMA**2))
            total += penalty * sum(_clipped_cosine(a, b) for a, b in zip(vectors, others, strict=True))
        images.append(10.0 * total / MAX_ORDER / len(own))
    return Scores(sum(images) / len(images), tuple(images))


_ORDERS = range(1, MAX_ORDER + 1)


def _weighted(words: Words, idf: dict[Gram, float], unseen: float) -> list[dict[Gram, float]]:
    """Return count x rarity of every n-gram, one vector an order; what no reference has is as rare as can be."""
    return [{gram: count * idf.get(gram, unseen) for gram, count in ngrams(words, order).items()} for order in _ORDERS]


def _clipped_cosine(candidate: dict[Gram, float], reference: dict[Gram, float]) -> float:
    """Return the cosine in which the candidate has of no n-gram more than the reference."""
    norms = math.sqrt(sum(value**2 for value in candidate.values())) * math.sqrt(
        sum(value**2 for value in reference.values())
    )
    common = sum(
        min(value, reference[gram]) * reference[gram] for gram, value in candidate.items() if gram in reference
    )
    return common / norms if norms else common


def _check(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if not candidates or len(candidates) != len(references):
        raise ValueError(f"need candidates with references, got {len(candidates)} and {len(references)}")
    empty = next((number for number, own in enumerate(references) if not own), None)
    if empty is not None:
        raise ValueError(f"image number {empty} has no reference caption")
