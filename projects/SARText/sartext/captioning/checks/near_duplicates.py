"""Groups of nearly identical texts by MinHash and banded buckets.

Texts are sets of overlapping word triples; two are near when the shared part of their triples (Jaccard index) reaches a
threshold. MinHash finds candidates in linear time, and every candidate is compared exactly, so no pair is wrongly
joined; a pair just above the threshold can be missed (at 0.8 with 32 bands of 4, less than one in a million).

Source: Broder, "On the resemblance and containment of documents", 1997; banding as in Leskovec et al., "Mining of
Massive Datasets", chapter 3.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np

BANDS, ROWS = 32, 4
_PRIME = (1 << 31) - 1
_SEED = 20260101


def normalise(text: str) -> str:
    """Return the words of a text, lower-case, one blank between: what makes two captions the same."""
    return " ".join(re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", text.lower()))


def shingles(text: str, *, size: int = 3) -> frozenset[str]:
    """Return the overlapping word triples of a normalised text; of a shorter one the whole."""
    words = text.split()
    if len(words) <= size:
        return frozenset((text,))
    return frozenset(" ".join(words[index : index + size]) for index in range(len(words) - size + 1))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Return the share of the triples of both that both have, 0..1."""
    return len(first & second) / max(len(first | second), 1)


def minhash(parts: frozenset[str]) -> np.ndarray:
    """Return the signature (BANDS * ROWS,) of a set: equal entries estimate the Jaccard index."""
    keys = [int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "big") % _PRIME for part in parts]
    factors, offsets = _permutations()
    # products of 31 bits fit, and are far above the prime: each factor mixes the order of the keys anew
    values = (np.array(keys, dtype=np.uint64)[:, None] * factors + offsets) % np.uint64(_PRIME)
    return values.min(axis=0)


def _permutations() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(_SEED)
    factors = rng.integers(1, _PRIME, BANDS * ROWS, dtype=np.uint64)
    return factors, rng.integers(0, _PRIME, BANDS * ROWS, dtype=np.uint64)


def group_near(texts: Sequence[str], *, threshold: float) -> list[int]:
    """Group texts that are the same or nearly so.

    Near is not transitive; groups are: a chain of near texts is one group, which is what a cap on repeated captions
    wants.

    Args:
        texts: any, compared as `normalise` gives them.
        threshold: least Jaccard index of word triples, 0..1.

    Returns:
        One number a text: the position of the first text of its group.
    """
    normal = [normalise(text) for text in texts]
    first = {text: position for position, text in reversed(list(enumerate(normal)))}
    unique = sorted(first, key=first.__getitem__)
    parts = [shingles(text) for text in unique]
    parent = list(range(len(unique)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(one: int, other: int) -> None:
        here, there = root(one), root(other)
        if here != there and jaccard(parts[one], parts[other]) >= threshold:
            parent[max(here, there)] = min(here, there)

    buckets: dict[tuple[int, bytes], list[int]] = {}
    for index, part in enumerate(parts):
        signature = minhash(part).reshape(BANDS, ROWS)
        for band in range(BANDS):
            bucket = buckets.setdefault((band, signature[band].tobytes()), [])
            if bucket:  # one comparison a bucket joins most of what belongs together
                join(index, bucket[-1])
            bucket.append(index)
    for bucket in buckets.values():
        _join_groups(bucket, root, join)
    group_of = {text: first[unique[root(index)]] for index, text in enumerate(unique)}
    return [group_of[text] for text in normal]


def _join_groups(bucket: Sequence[int], root: Callable[[int], int], join: Callable[[int, int], None]) -> None:
    """Compare the members of a bucket that are in different groups, each with each: a chain may hang on any pair."""
    groups: dict[int, list[int]] = {}
    for index in bucket:
        groups.setdefault(root(index), []).append(index)
    lists = list(groups.values())
    for number, group in enumerate(lists):
        for other in lists[number + 1 :]:
            for one in group:
                for two in other:
                    if root(one) == root(two):
                        break
                    join(one, two)
                else:
                    continue
                break
