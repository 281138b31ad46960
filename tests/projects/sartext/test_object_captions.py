"""Route 1: facts of boxes, and sentences that state them and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.lexicon import load_lexicon
from mmovseg.projects.sartext.captioning.object_captions import WritingOptions, caption_objects
from mmovseg.projects.sartext.captioning.objects import (
    AnnotatedObject,
    ObjectImage,
    ObjectRules,
    arrangement_of,
    fit_size_limits,
    object_facts,
    scene_of_land,
)
from mmovseg.projects.sartext.captioning.parsing import find_faults, parse_caption

LEXICON = load_lexicon().for_classes(["ship", "aircraft", "harbor"])
RULES = ObjectRules()


def box(category, x, y, side=10.0, **facts):
    return AnnotatedObject(category, (x - side / 2, y - side / 2, x + side / 2, y + side / 2), side * side, **facts)


def image(*objects, name="a", **facts):
    return ObjectImage(f"{name}.png", name, "made", "test", 300, 300, tuple(objects), **facts)


def random_images(count, seed=0):
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        objects = [
            box(category, *rng.uniform(0, 300, 2), side=rng.uniform(4, 40))
            for category in ("ship", "aircraft", "harbor")
            for _ in range(int(rng.integers(0, 14)) * int(rng.integers(0, 2)))
        ]
        scene = (None, "inshore", "offshore", "inland")[number % 4]
        images.append(image(*objects, name=f"image {number}", scene=scene, gsd_m=1.0 + number % 2))
    return images


def group(objects, **changes):
    (facts,) = object_facts(image(*objects), {}, replace(RULES, **changes))["objects"].values()
    return facts


def test_the_place_of_a_group_is_weighted_by_area():
    assert group([box("ship", 50, 50)])["cell"] == "top left"
    ships = [box("ship", 50, 50, 40), box("ship", 60, 40), box("ship", 250, 80)]
    assert group(ships) == {"count": 3, "cells": {"top left": 2, "top right": 1}, "cell": "top left"}
    corners = [box("ship", 50, 50), box("ship", 250, 250)]
    assert "cell" not in group(corners)  # the middle of the two is empty
    assert group(corners, group_share=0.0)["cell"] == "centre"


def test_sizes_are_of_a_class_and_a_resolution():
    ships = [box("ship", 150, 150, side) for side in range(10, 40)]
    planes = [box("aircraft", 150, 150, 5.0) for _ in range(40)]
    few = [box("harbor", 150, 150, side) for side in range(10, 39)]
    images = [image(*ships, *few, gsd_m=1.0), image(*planes, gsd_m=1.0)]
    limits = fit_size_limits(images, RULES)
    assert set(limits) == {("ship", 1.0)}  # the areas of aircraft do not differ, and there are 29 harbours
    low, high = limits["ship", 1.0]
    areas = np.array([side**2 for side in range(10, 40)])
    assert (areas <= low).sum() == 10 and (areas >= high).sum() == 10

    def sizes(sides, gsd_m):
        found = object_facts(image(*(box("ship", 150, 150, s) for s in sides), gsd_m=gsd_m), limits, RULES)
        return found["objects"]["ship"].get("size")

    assert [sizes([side], 1.0) for side in (12, 25, 38)] == ["small", "medium", "large"]
    assert sizes([12, 13], 1.0) == "small" and sizes([12, 38], 1.0) is None
    assert sizes([12], 2.0) is None


@pytest.mark.parametrize(
    ("points", "word"),
    [
        ([(30, 40), (90, 62), (150, 80), (210, 101)], "row"),
        ([(30, 40), (60, 40), (290, 40)], None),  # straight, but one lies far off
        ([(30, 40), (90, 140), (150, 40), (210, 140)], None),
        ([(100, 100), (110, 105), (102, 118), (120, 112)], "cluster"),
        ([(20, 20), (280, 30), (30, 270), (260, 260), (150, 140)], "scattered"),
        ([(10, 10), (12, 14), (290, 288), (285, 290)], None),  # two pairs
        ([(30, 40), (90, 60)], None),
        ([(50, 50), (50, 50), (50, 50)], "cluster"),
    ],
)
def test_arrangements(points, word):
    assert arrangement_of(np.array(points, dtype=float), 300, 300, RULES) == word
    turned = np.array([(y, 300 - x) for x, y in points], dtype=float)
    assert arrangement_of(turned, 300, 300, RULES) == word


def test_small_cut_and_uncounted_objects():
    objects = [box("ship", 150, 150), box("ship", 100, 100, 3.0), box("ship", 297, 150, 10.0)]
    assert group(objects)["count"] == 3
    facts = object_facts(image(*objects), {}, ObjectRules(min_side_px=4, drop_truncated=True))
    assert facts["objects"]["ship"]["count"] == 1 and facts["dropped"] == 2
    crowd = object_facts(image(box("ship", 50, 50), box("ship", 99, 99, is_crowd=True)), {}, RULES)
    assert crowd["objects"]["ship"] == {"count": 1, "is_complete": False}
    (record,) = caption_objects([image(box("ship", 99, 99, is_crowd=True))], LEXICON, limits={})
    assert all("several" in text or "a group of" in text for text in record.captions)


def test_scene_words():
    assert [scene_of_land(share) for share in (0.0, 0.05, 0.5, 0.95, 1.0)] == [
        "offshore",
        "offshore",
        "inshore",
        "inland",
        "inland",
    ]
    with pytest.raises(UserError, match=r"lies in 0\.\.1, got 3"):
        scene_of_land(3)


def count_by_hand(item, category):
    return sum(one.category == category for one in item.objects)


def test_captions_state_the_annotation():
    images = random_images(60)
    limits = fit_size_limits(images, RULES)
    assert len(limits) == 6
    rules, places = set(), 0
    for item, record in zip(images, caption_objects(images, LEXICON, limits=limits), strict=True):
        assert len(set(record.captions)) == 5
        assert max(len(text.split()) for text in record.captions) <= 55  # fits the 77 tokens of CLIP
        said = [parse_caption(text, LEXICON) for text in record.captions]
        for parsed in said:
            for category, count in parsed.counts().items():
                true = count_by_hand(item, category)
                assert count == (true if true <= 10 else "more than ten")
            for mention in parsed.mentions:
                (one, *more) = [x for x in item.objects if x.category == mention.category] or [None]
                if one is not None and not more and mention.places:
                    x, y = (one.box[0] + one.box[2]) / 200, (one.box[1] + one.box[3]) / 200
                    vertical, side = ("top", "", "bottom")[int(y)], ("left", "", "right")[int(x)]
                    assert mention.places == [(f"{vertical} {side}".strip() or "centre", None)]
                    places += 1
        if item.objects:
            assert {category for parsed in said for category in parsed.counts()} == {x.category for x in item.objects}
        rules |= {rule.split("/")[0] for caption in record.provenance["rules"] for rule in caption}
        assert record.provenance["facts"] == json.loads(json.dumps(record.provenance["facts"]))
    assert places > 5
    wanted = "full counted located arranged spread absence count location:group location:cells size:small size:large"
    wanted += " arrangement:scattered scene:inshore scene:offshore scene:inland objects"
    assert set(wanted.split()) <= rules


def test_captions_do_not_depend_on_order_or_company():
    images = random_images(12)
    limits = fit_size_limits(images, RULES)
    records = list(caption_objects(images, LEXICON, limits=limits))
    assert list(caption_objects(images[::-1], LEXICON, limits=limits)) == records[::-1]
    assert list(caption_objects(images[7:8], LEXICON, limits=limits)) == records[7:8]
    other = list(caption_objects(images, LEXICON, limits=limits, options=WritingOptions(seed=1)))
    assert sum(a.captions != b.captions for a, b in zip(records, other, strict=True)) == 12
    assert [record.provenance["facts"] for record in other] == [record.provenance["facts"] for record in records]
    longer = list(caption_objects(images, LEXICON, limits=limits, options=WritingOptions(num_captions=9)))
    assert all(a.captions == b.captions[:5] for a, b in zip(records, longer, strict=True))
    assert min(len(record.captions) for record in longer) == 9


def test_broken_down_counts_read_as_english():
    item = image(box("ship", 50, 50), box("ship", 250, 50), box("ship", 55, 250), box("ship", 45, 240))
    (record,) = caption_objects([item], LEXICON, limits={}, options=WritingOptions(num_captions=30))
    spread = [
        text for text, rules in zip(record.captions, record.provenance["rules"], strict=True) if "spread" in rules
    ]
    assert len(spread) >= 5
    for text in spread:
        assert re.search(r"one (at|in) the .*, one (at|in) the .* and two (at|in) the ", text), text


def test_words_are_chosen_evenly():
    images = [image(box("ship", 50, 50), name=f"{number}") for number in range(150)]
    texts = [record.captions[0] for record in caption_objects(images, LEXICON, limits={})]
    assert 35 < sum("vessel" in text for text in texts) < 115
    assert len(set(texts)) > 60


def test_images_without_objects():
    empty = image(name="empty")
    (record,) = caption_objects([empty], LEXICON, limits={})
    parsed = [parse_caption(text, LEXICON) for text in record.captions]
    assert all(one.counts() == {"ship": 0, "aircraft": 0, "harbor": 0} for one in parsed)
    assert len(record.captions) == 5
    assert list(caption_objects([empty], LEXICON, limits={}, options=WritingOptions(empty="skip"))) == []


def test_own_words_that_cannot_be_read_back_are_refused(tmp_path):
    templates = load_lexicon().words["templates"] | {"objects": ["ships and {objects}"]}
    (tmp_path / "own.json").write_text(json.dumps({"templates": templates}))
    own = load_lexicon(tmp_path / "own.json").for_classes(["ship", "aircraft"])
    with pytest.raises(UserError, match=r"caption 'ships and .*' cannot be read back"):
        list(caption_objects([image(box("ship", 50, 50))], own, limits={}))


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match="has an object of the class 'tank'; known: ship, aircraft, harbor"):
        list(caption_objects([image(box("tank", 50, 50))], LEXICON, limits={}))
    with pytest.raises(UserError, match="at least 1 caption, got 0"):
        WritingOptions(num_captions=0)
    with pytest.raises(UserError, match="empty is 'drop'"):
        WritingOptions(empty="drop")
    with pytest.raises(UserError, match="percentiles must rise"):
        ObjectRules(small_percentile=80)
    with pytest.raises(UserError, match="min_side_px must be >= 0"):
        ObjectRules(min_side_px=-1)


def test_find_faults_sees_a_changed_annotation():
    images = random_images(30)
    records = list(caption_objects(images, LEXICON, limits={}))
    one_more = [replace(item, objects=(*item.objects, box("ship", 150, 150))) for item in images]
    for item, record in zip(one_more, records, strict=True):
        facts = object_facts(item, {}, RULES)
        counted = record.captions[0]
        true = count_by_hand(item, "ship")
        kinds = {fault.kind for fault in find_faults(parse_caption(counted, LEXICON), facts)}
        assert ("count" in kinds) == ("ship" in parse_caption(counted, LEXICON).counts() and true <= 11)
