"""Scenes and prompts for pictures follow from labels and clouds."""

import pytest
import torch

from mmovseg.engine.scenes import choose_prompts, choose_scenes
from mmovseg.testing.checks import tiny_vocabulary

WORDS = tiny_vocabulary(seen=3, unseen=2)  # labels 3 and 4 are unseen


def scene(*labels, cover=None):
    """100 pixels; `labels` share them equally."""
    item = {"sem_seg": torch.tensor(labels).repeat_interleave(100 // len(labels)).reshape(10, -1)}
    if cover is not None:
        item["cloud_alpha"] = (torch.arange(100) < 100 * cover).float().reshape(10, 10)
    return item


def test_one_scene_a_range_of_clouds_if_it_shows_every_unseen_class():
    items = [
        scene(0, 1, cover=0.5),  # no unseen class
        scene(0, 3, 4, 1, cover=0.1),  # hardly clouded
        scene(0, 3, 4, 1, cover=0.9),
        scene(0, 3, 4, 1, cover=0.5),
        scene(0, 3, 4, 1, cover=0.55),
        scene(0, 3, 4, 1, cover=0.7),
        scene(0, 3, 4, 1, cover=0.3),
    ]
    assert choose_scenes(items, WORDS, 4) == [3, 5, 6, 2]
    assert choose_scenes(items, WORDS, 2) == [3, 5]
    assert choose_scenes(items, WORDS, 9) == [3, 5, 6, 2, 0, 1, 4]


def test_without_clouds_or_labels_there_is_a_choice_too():
    items = [scene(0, 1), {"image": torch.zeros(3, 4, 4)}, scene(0, 3, 4, 1)]
    assert choose_scenes(items, WORDS, 2) == [2, 0]
    assert choose_scenes([], WORDS, 2) == []


def test_a_trace_of_an_unseen_class_is_not_enough():
    item = scene(0, 4)
    item["sem_seg"].view(-1)[:2] = 3
    assert choose_scenes([item, scene(0, 3, 4, 1)], WORDS, 1) == [1]


@pytest.mark.parametrize(
    ("labels", "count", "expected"),
    [
        ((2, 2, 1, 0, 3), 4, [2, 0, 1, 3]),  # equal areas in the order of the classes
        ((2, 1, 1, 3, 4), 4, [1, 2, 3, 4]),
        ((2, 1, 1, 3, 4), 2, [1, 3]),
        ((255, 0), 4, [0]),
    ],
)
def test_prompts_are_the_largest_seen_classes_then_unseen_ones(labels, count, expected):
    assert choose_prompts(scene(*labels), WORDS, count) == expected


def test_prompts_of_a_scene_without_labels():
    assert choose_prompts({"image": torch.zeros(3, 4, 4)}, WORDS, 4) == [0, 1, 3, 4]
