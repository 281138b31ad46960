"""Route 2: facts of label maps, and sentences that state them and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmovseg.data.vocabulary import get_vocabulary, list_vocabularies
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.cover import CoverRules, cover_facts, elongation_of
from mmovseg.projects.sartext.captioning.cover_captions import MappedImage, caption_labels
from mmovseg.projects.sartext.captioning.lexicon import load_lexicon
from mmovseg.projects.sartext.captioning.object_captions import WritingOptions
from mmovseg.projects.sartext.captioning.parsing import parse_caption

BARE, GRASS, FARM, FOREST, CITY, ROAD, WATER = range(7)
VOCABULARY = get_vocabulary("miniearth")
LEXICON = load_lexicon().for_classes(VOCABULARY.names)
IMAGE = MappedImage("a.png", "a", "made", "test")


def facts_of(labels, **changes):
    return cover_facts(np.asarray(labels), VOCABULARY, LEXICON, CoverRules(**changes))


def ground(value=FOREST, size=(60, 90)):
    return np.full(size, value, dtype=np.uint8)


def test_shares_become_levels_and_traces_are_left_out():
    labels = ground()
    labels[:, :30] = WATER  # a third
    labels[:6, 30:60] = CITY  # 3.3 percent
    labels[50:, 60:] = FARM  # 5.6 percent
    cover = facts_of(labels)["cover"]
    assert {name: known["level"] for name, known in cover.items()} == {
        "forest": "dominant",
        "water": "large",
        "farmland": "some",
    }
    assert cover["water"]["share"] == 0.3333 and cover["farmland"]["share"] == 0.0556
    assert "city" in facts_of(labels, some=0.03)["cover"]


def test_unlabelled_pixels_do_not_count():
    labels = ground(255)
    labels[:40] = WATER
    assert facts_of(labels)["cover"]["water"] == {"share": 1.0, "level": "dominant", "areas": 1}
    labels[:] = 255
    assert facts_of(labels) is None
    labels[:20] = WATER
    assert facts_of(labels) is None  # a third is labelled
    assert facts_of(labels, min_labelled=0.3)["cover"]["water"]["share"] == 1.0


def test_areas_and_their_places():
    labels = ground()
    labels[2:18, 2:26] = CITY
    labels[2:18, 64:88] = CITY
    labels[45:60, 35:55] = FARM
    labels[30, 30] = FARM  # a crumb
    cover = facts_of(labels)["cover"]
    assert cover["city"]["areas"] == 2 and cover["city"]["cells"] == {"top left": 1, "top right": 1}
    assert cover["city"]["half"] == "top half" and "cell" not in cover["city"]
    assert cover["farmland"]["areas"] == 1 and cover["farmland"]["cell"] == "bottom"
    assert "cell" not in cover["forest"] and "half" not in cover["forest"]
    labels[30:32, 0:90:3] = FARM  # now a fifth of the class are crumbs
    assert "areas" not in facts_of(labels)["cover"]["farmland"]


def test_lines_and_their_courses():
    labels = ground(FOREST)
    labels[20:26] = ROAD
    labels[40:60] = WATER
    facts = facts_of(labels)
    assert facts["cover"]["road"]["courses"] == ["left to right"]
    assert "courses" not in facts["cover"]["water"]  # as wide as a lake
    assert facts["relations"] == [["water", "beside", "forest"], ["road", "through", "forest"]]
    labels[26:40] = WATER
    assert ["road", "along", "water"] in facts_of(labels)["relations"]
    turned = facts_of(labels.T.copy())
    assert turned["cover"]["road"]["courses"] == ["top to bottom"]


def test_a_bent_line_is_long_and_a_blob_is_not():
    bent = np.zeros((60, 60), dtype=bool)
    bent[10:14, 5:55] = bent[10:55, 51:55] = True
    blob = np.zeros((60, 60), dtype=bool)
    blob[20:40, 20:40] = True
    assert elongation_of(bent) > 10 and elongation_of(blob) < 2 and elongation_of(np.ones((5, 5), dtype=bool)) == 1.0
    thin = np.zeros((60, 60), dtype=bool)
    thin[3] = True
    assert elongation_of(thin) > 20


def test_neighbours():
    labels = ground(FARM)
    labels[20:40, 30:60] = CITY
    assert facts_of(labels)["relations"] == [["city", "surrounded", "farmland"]]
    labels[20:40, 60:] = WATER
    relations = facts_of(labels)["relations"]
    assert ["city", "beside", "farmland"] in relations and ["water", "beside", "farmland"] in relations
    labels[:, 45:] = 255
    assert ["city", "surrounded", "farmland"] not in facts_of(labels, min_labelled=0.1)["relations"]


def random_labels(rng, classes, size=48):
    """Rectangles and lines of random classes."""
    labels = np.full((size, size), rng.integers(classes), dtype=np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, size - 8, 2)
        height, width = rng.integers(6, size, 2)
        labels[top : top + height, left : left + width] = rng.integers(classes)
    row = int(rng.integers(0, size - 5))
    labels[row : row + 4] = rng.integers(classes)
    return labels


@pytest.mark.parametrize("dataset", sorted({name for name, _ in list_vocabularies()}))
def test_captions_of_every_vocabulary_state_the_labels(dataset):
    vocabulary = get_vocabulary(dataset)
    lexicon = load_lexicon().for_classes(vocabulary.names)
    rng = np.random.default_rng(len(vocabulary))
    for number in range(8):
        labels = random_labels(rng, len(vocabulary))
        record = caption_labels(MappedImage(f"{number}.png", f"{number}", "made", "test"), labels, vocabulary, lexicon)
        shares = {name: 100 * (labels == index).mean() for index, name in enumerate(vocabulary.names)}
        named = {name for name in lexicon.nouns if shares[name] >= 5}
        assert (record is None) == (not named)
        if record is None:
            continue
        assert max(len(text.split()) for text in record.captions) <= 55  # fits the 77 tokens of CLIP
        said = [parse_caption(text, lexicon) for text in record.captions]
        assert {mention.category for parsed in said for mention in parsed.mentions} == set(
            sorted(named, key=lambda name: -shares[name])[:5]
        ) or len(named) > 5
        for mention in (mention for parsed in said for mention in parsed.mentions):
            share = shares[mention.category]
            assert mention.percent is None or abs(mention.percent - share) < 2.51
            level = "dominant" if share > 50 else "large" if share >= 20 else "some"
            assert mention.level in (None, level)


def test_captions_follow_from_the_image_alone():
    labels = random_labels(np.random.default_rng(1), 7)
    record = caption_labels(IMAGE, labels, VOCABULARY, LEXICON)
    assert caption_labels(IMAGE, labels.copy(), VOCABULARY, LEXICON) == record
    assert record.provenance["facts"] == json.loads(json.dumps(record.provenance["facts"]))
    assert len(record.captions) == len(set(record.captions)) == 5 == len(record.provenance["rules"])
    assert record.route == "segmentation" and record.provenance["classes"] == VOCABULARY.names
    other = caption_labels(IMAGE, labels, VOCABULARY, LEXICON, options=WritingOptions(seed=1, num_captions=8))
    assert other.captions[:5] != record.captions and len(other.captions) == 8
    styles = [rules[0] for rules in record.provenance["rules"]]
    assert styles[:2] == ["levels", "related"] and "percents" in styles


def test_bad_maps_and_settings_are_refused():
    with pytest.raises(UserError, match="label 9 is none of the 7 classes"):
        facts_of(ground(9))
    with pytest.raises(UserError, match="the shares must rise"):
        CoverRules(some=0.3)
    buildings = get_vocabulary("sarbud")
    lexicon = load_lexicon().for_classes(buildings.names)
    assert caption_labels(IMAGE, ground(buildings.names.index("other")), buildings, lexicon) is None
