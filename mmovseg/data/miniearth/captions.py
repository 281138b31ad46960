"""Sentences and questions that follow from the labels of a scene.

Captions name every class that covers at least 1.5 % of the scene, and no other, by its plain name, as the training of
CLIP wants it. The order of the sentences and small choices of words follow from the scene's position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmovseg.data.miniearth.noise import lattice_hash, rehash
from mmovseg.data.miniearth.regions import CLASS_NAMES, ROAD, TARGET_CATEGORIES, WATER

MIN_SHARE = 0.015
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PLURALS = {"aircraft": "aircraft", "ship": "ships", "vehicle": "vehicles"}


def named_classes(shares: Sequence[float]) -> list[int]:
    """Return ids of the classes that captions name, the largest first."""
    ids = [index for index, share in enumerate(shares) if share >= MIN_SHARE]
    return sorted(ids, key=lambda index: (-shares[index], index))


def join_words(words: Sequence[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _number(row: int, col: int, seed: int, index: int, below: int) -> int:
    key = lattice_hash(np.array([row]), np.array([col]), seed & 0xFFFFFFFF)
    return int(rehash(key, index)[0]) % below


def _amount(share: float) -> str:
    for bound, word in ((0.5, "mostly"), (0.2, "much"), (0.08, "some")):
        if share >= bound:
            return word
    return "a little"


def _crossed(names: list[str], ids: list[int]) -> str:
    """Return the classes with roads and shores among them: "forest and city crossed by a road, beside water"."""
    ground = [name for name, index in zip(names, ids, strict=True) if index not in (ROAD, WATER)]
    if not ground:
        return join_words(names)
    text = join_words(ground)
    if ROAD in ids:
        text += " crossed by a road"
    if WATER in ids:
        text += " beside water" if ROAD not in ids else ", beside water"
    return text


def count_targets(targets: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the number of targets per category, zeros included."""
    return {name: sum(target["category"] == name for target in targets) for name in TARGET_CATEGORIES}


def _quantity(count: int, category: str) -> str:
    number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    return f"{number} {category if count == 1 else _PLURALS[category]}"


def describe(
    shares: Sequence[float], targets: Sequence[dict[str, Any]] = (), *, row: int = 0, col: int = 0, seed: int = 0
) -> list[str]:
    """Return at least six captions; the first is the plain prompt "a photo of ..." with the largest class first.

    Args:
        shares: area share of every class, 0 .. 1, in the order of the label ids.
        targets: dicts with `category`; when there are some, one more sentence counts them.
        row: first world row, which with `col` and `seed` decides between wordings.
        col: first world column.
        seed: world seed.
    """
    ids = named_classes(shares)
    names = [CLASS_NAMES[index] for index in ids]
    listed, backward = join_words(names), join_words(names[::-1])
    turn = _number(row, col, seed, 0, len(names))
    turned = join_words(names[turn:] + names[:turn])
    first = f"a photo of {listed}"
    if len(names) == 1:
        rest = [f"a satellite image of {listed}", f"only {listed}", f"an aerial view of {listed}"]
        rest += [f"{listed} everywhere", f"a remote sensing picture of {listed}", f"{listed} seen from above"]
    else:
        amounts = ", ".join(f"{_amount(shares[index])} {CLASS_NAMES[index]}" for index in ids)
        percents = ", ".join(f"{CLASS_NAMES[index]} {max(round(100 * shares[index]), 1)} percent" for index in ids)
        rest = [
            f"a satellite image of {_crossed(names, ids)}",
            amounts,
            f"an aerial view showing {turned}",
            f"a remote sensing picture of {names[0]} with {join_words(names[1:])}",
            f"a photo of {backward}",
            f"{turned} seen from above",
            f"land cover: {percents}",
        ]
    counts = [_quantity(count, name) for name, count in count_targets(targets).items() if count]
    if counts:
        rest.append(f"a photo of {listed}, with {join_words(counts)}")
    start = _number(row, col, seed, 1, len(rest))
    return [first, *rest[start:], *rest[:start]]


def ask(shares: Sequence[float], targets: Sequence[dict[str, Any]] = ()) -> list[dict[str, str]]:
    """Return questions with answers that follow from the labels.

    Presence is asked about classes that are clearly there (1.5 % or more) or not there at all; a comparison only where
    the two shares differ by at least 5 points.

    Returns:
        Dicts with `kind` (presence, dominant, comparison or count), `question` and `answer`.
    """
    items = []
    for index, name in enumerate(CLASS_NAMES):
        if shares[index] >= MIN_SHARE or shares[index] == 0:
            answer = "yes" if shares[index] > 0 else "no"
            items.append({"kind": "presence", "question": f"is there {name} in the image?", "answer": answer})
    ids = named_classes(shares)
    if len(ids) == 1 or shares[ids[0]] - shares[ids[1]] >= 0.05:
        question = "which land cover takes the largest area?"
        items.append({"kind": "dominant", "question": question, "answer": CLASS_NAMES[ids[0]]})
    for first, second in zip(ids, ids[1:], strict=False):
        if shares[first] - shares[second] >= 0.05:
            # asked in label order, so that the answer does not follow from the wording
            low, high = sorted((first, second))
            question = f"is there more {CLASS_NAMES[low]} than {CLASS_NAMES[high]}?"
            items.append({"kind": "comparison", "question": question, "answer": "yes" if low == first else "no"})
    for category, count in count_targets(targets).items():
        question = f"how many {_PLURALS[category]} are in the image?"
        items.append({"kind": "count", "question": question, "answer": str(count)})
    return items
