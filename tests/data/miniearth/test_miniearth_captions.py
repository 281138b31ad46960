"""Captions and questions follow from the labels."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmovseg.data.miniearth import render
from mmovseg.data.miniearth.captions import ask, count_targets, describe, join_words
from mmovseg.data.miniearth.dataset import scene_captions
from mmovseg.data.miniearth.regions import CLASS_NAMES


def named(sentence: str) -> set[str]:
    return {name for name in CLASS_NAMES if re.search(rf"\b{name}\b", sentence)}


@pytest.mark.parametrize("index", range(12))
def test_captions_name_exactly_the_classes_present(index):
    scene = render("default", 64 * index, 200_000 + 640 * index, 64, 64)
    present = {name for name, share in zip(CLASS_NAMES, scene.shares, strict=True) if share >= 0.015}
    captions = scene_captions(scene)
    assert len(captions) >= 6 and len(set(captions)) >= 4
    for caption in captions:
        assert named(caption) == present, caption
    assert captions == scene_captions(scene)


def test_first_caption_is_the_plain_prompt():
    assert describe([0, 0, 0, 0.6, 0, 0, 0.4])[0] == "a photo of forest and water"
    assert describe([0, 0, 0, 1.0, 0, 0, 0])[0] == "a photo of forest"
    assert describe([0, 0, 0.2, 0.5, 0, 0.01, 0.29])[0] == "a photo of forest, water and farmland"


def test_one_class_gives_six_different_sentences():
    captions = describe([0, 0, 0, 0, 0, 0, 1.0])
    assert len(set(captions)) >= 6 and all(named(caption) == {"water"} for caption in captions)


def test_amounts_follow_the_shares():
    captions = describe([0, 0, 0, 0.7, 0, 0.05, 0.25])
    assert "mostly forest, much water, a little road" in captions
    assert "a satellite image of forest crossed by a road, beside water" in captions
    assert "land cover: forest 70 percent, water 25 percent, road 5 percent" in captions


def test_wording_varies_with_the_place():
    shares = [0.3, 0.2, 0.2, 0.3, 0, 0, 0]
    assert len({tuple(describe(shares, row=row)) for row in range(0, 640, 64)}) > 3


def test_targets_are_counted_in_a_sentence():
    targets = [{"category": "ship"}, {"category": "ship"}, {"category": "vehicle"}]
    captions = describe([0, 0, 0, 0, 0, 0.1, 0.9], targets)
    assert "a photo of water and road, with two ships and one vehicle" in captions
    assert count_targets(targets) == {"aircraft": 0, "ship": 2, "vehicle": 1}


def test_join_words():
    assert [join_words(list(words)) for words in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


def test_answers_follow_from_the_labels():
    items = ask([0.1, 0, 0, 0.6, 0, 0.01, 0.29], [{"category": "ship"}])
    answers = {item["question"]: item["answer"] for item in items}
    assert answers["is there forest in the image?"] == "yes"
    assert answers["is there city in the image?"] == "no"
    assert "is there road in the image?" not in answers
    assert answers["which land cover takes the largest area?"] == "forest"
    assert answers["is there more forest than water?"] == "yes"
    assert answers["is there more bareland than water?"] == "no"
    assert answers["how many ships are in the image?"] == "1"
    assert answers["how many vehicles are in the image?"] == "0"


def test_comparisons_agree_with_the_label_counts():
    both = set()
    for index in range(20):
        scene = render("default", 500 * index, 64, 64, 64)
        counts = dict(zip(CLASS_NAMES, np.bincount(scene.label.ravel(), minlength=7), strict=True))
        for item in ask(scene.shares, scene.targets):
            if item["kind"] == "comparison":
                first, second = re.fullmatch(r"is there more (\w+) than (\w+)\?", item["question"]).groups()
                assert (counts[first] > counts[second]) == (item["answer"] == "yes")
                both.add(item["answer"])
    assert both == {"yes", "no"}
