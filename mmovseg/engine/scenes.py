"""Which test scenes and which prompts go into a picture: chosen by what scenes show, never by the model's answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmovseg.data.clouds import COVERED_ALPHA
from mmovseg.data.sample import ModelInput
from mmovseg.data.vocabulary import Vocabulary

LOOK_THROUGH = 150  # test scenes among which pictures are chosen
_COVERS = ((0.4, 0.6), (0.6, 0.8), (0.25, 0.4), (0.8, 1.01))
_MIN_UNSEEN_SHARE = 0.03


def choose_scenes(items: Sequence[ModelInput], vocabulary: Vocabulary, count: int) -> list[int]:
    """Return the indices of scenes to draw, looking at labels and clouds only.

    For each range of cloud cover the first scene in which every unseen class covers 3% or more; then, and where clouds
    are in the image or there are none, so that nobody says how much they cover, the first such scenes; and when there
    are not enough of them, the first scenes that are not taken yet.

    Args:
        items: with labels where there are some.
        vocabulary: of the labels.
        count: how many, or all if there are not as many.
    """
    covers = [_cover(item) for item in items]
    telling = [index for index, item in enumerate(items) if _shows_all_unseen(item, vocabulary)]
    chosen: list[int] = []
    for low, high in _COVERS:
        found = [i for i in telling if i not in chosen and covers[i] is not None and low <= covers[i] < high]  # type: ignore[operator]
        chosen += found[:1]
    chosen += [index for index in telling if covers[index] is None]
    chosen += [index for index in range(len(items)) if index not in chosen]
    return chosen[:count]


def choose_prompts(item: ModelInput, vocabulary: Vocabulary, count: int) -> list[int]:
    """Return the classes to draw for a scene: its largest seen ones, then up to half of all unseen ones.

    Args:
        item: without labels, the first classes of either kind are taken.
        vocabulary: of the labels.
        count: how many at most.
    """
    if "sem_seg" in item:
        label = item["sem_seg"]
        areas = torch.bincount(label[label < len(vocabulary)], minlength=len(vocabulary))
    else:
        areas = torch.ones(len(vocabulary), dtype=torch.int64)
    unseen = [label for label in vocabulary.unseen_ids if areas[label] > 0][: count // 2]
    seen = sorted((label for label in vocabulary.seen_ids if areas[label] > 0), key=lambda label: -int(areas[label]))
    return seen[: count - len(unseen)] + unseen


def _cover(item: ModelInput) -> float | None:
    return float((item["cloud_alpha"] > COVERED_ALPHA).float().mean()) if "cloud_alpha" in item else None


def _shows_all_unseen(item: ModelInput, vocabulary: Vocabulary) -> bool:
    if "sem_seg" not in item:
        return False
    shares = [float((item["sem_seg"] == label).float().mean()) for label in vocabulary.unseen_ids]
    return min(shares, default=1.0) >= _MIN_UNSEEN_SHARE
