"""Captions read back: what is said of which class, and what of it the annotation does not bear out."""

from __future__ import annotations

import pytest

from mmovseg.projects.sartext.captioning.facts import CELLS, cell_at, stated_count
from mmovseg.projects.sartext.captioning.lexicon import load_lexicon
from mmovseg.projects.sartext.captioning.parsing import Mention, find_faults, parse_caption

LEXICON = load_lexicon().for_classes(["ship", "aircraft", "road", "water", "city"])
FACTS = {
    "objects": {
        "ship": {
            "count": 3,
            "cells": {"top left": 2, "centre": 1},
            "cell": "top left",
            "size": "small",
            "arrangement": "row",
        },
        "aircraft": {"count": 12, "cells": {"top": 11, "left": 1}},
        "city": {"count": 2, "is_complete": False},
    },
    "cover": {
        "water": {"share": 0.42, "level": "large", "areas": 2, "half": "left half", "courses": ["left to right"]},
        "road": {"share": 0.06, "level": "some"},
    },
    "relations": [["road", "along", "water"]],
    "scene": "inshore",
}


def test_a_rich_sentence():
    text = (
        "At the top left, three SMALL ships in a row (two in the upper left corner and one in the centre) and a single "
        "aircraft; about 40 percent open water, much water stretching from the left edge to the right edge, a road "
        "along the water and several areas of city, in an inshore area."
    )
    parsed = parse_caption(text, LEXICON)
    ships, plane, share, level, road, shore, city = parsed.mentions
    assert ships == Mention(
        "ship", 3, "object", "small", "row", places=[("top left", None), ("top left", 2), ("centre", 1)]
    )
    assert plane == Mention("aircraft", 1, "object")
    assert share == Mention("water", percent=40)
    assert level == Mention("water", level="large", courses=["left to right"])
    assert (road, shore) == (Mention("road"), Mention("water"))
    assert city == Mention("city", "several", "area")
    assert parsed.relations == [("road", "along", "water")] and parsed.scene == "inshore"
    assert parsed.counts() == {"ship": 3, "aircraft": 1, "city": "several"}


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("no ships, aircraft or roads in a SAR image", {"ship": 0, "aircraft": 0, "road": 0}),
        ("without vessels. two aircraft", {"ship": 0, "aircraft": 2}),
        ("no ships. aircraft", {"ship": 0}),
        ("no ships but 14 airplanes", {"ship": 0, "aircraft": 14}),
        ("more than ten ships and upwards of ten aircraft", {"ship": "more than ten", "aircraft": "more than ten"}),
        ("a ship near the city", {}),
        ("two trees and one dog", {}),
        ("", {}),
    ],
)
def test_counts(text, counts):
    assert parse_caption(text, LEXICON).counts() == counts


def test_a_stop_ends_a_statement():
    ships, planes = parse_caption("three ships; in the centre, two aircraft", LEXICON).mentions
    assert ships.places == [] and planes.places == [("centre", None)]
    assert parse_caption("roads; along the water", LEXICON).relations == []


def faults_of(text):
    return [(fault.kind, fault.category) for fault in find_faults(parse_caption(text, LEXICON), FACTS)]


@pytest.mark.parametrize(
    "text",
    [
        "three small ships lined up in the upper left",
        "three ships, two at the top left and one in the middle",
        "many aircraft: more than ten at the top and one on the left",
        "several areas of city",
        "two areas of water in the left half; some roads along the water",
        "about 40 percent water and around 5 percent roads",
        "ships, water and roads in a coastal area",
        "a strip of water running from left to right",
    ],
)
def test_right_statements_have_no_fault(text):
    assert faults_of(text) == []


@pytest.mark.parametrize(
    ("text", "kind", "category"),
    [
        ("two ships", "count", "ship"),
        ("no ships", "count", "ship"),
        ("more than ten ships", "count", "ship"),
        ("several ships", "count", "ship"),
        ("ten aircraft", "count", "aircraft"),
        ("12 aircraft on the left", "location", "aircraft"),
        ("two areas of city", "count", "city"),
        ("three areas of water", "count", "water"),
        ("large ships", "size", "ship"),
        ("small aircraft", "size", "aircraft"),
        ("ships close together", "arrangement", "ship"),
        ("ships in the centre", "location", "ship"),
        ("three ships, three at the top left", "location", "ship"),
        ("water in the right half", "location", "water"),
        ("mostly water", "share", "water"),
        ("about 45 percent water", "share", "water"),
        ("water running from top to bottom", "course", "water"),
        ("roads through the water", "relation", "road"),
        ("water along the roads", "relation", "water"),
        ("ships on an open-sea area", None, None),
        ("ships in an open-sea area", "scene", ""),
    ],
)
def test_each_wrong_statement_is_found(text, kind, category):
    assert faults_of(text) == ([(kind, category)] if kind else [])


def test_a_class_that_is_not_annotated_is_found():
    lexicon = LEXICON.for_classes(["ship", "aircraft", "road", "water", "city", "forest"])
    (fault,) = find_faults(parse_caption("three ships beside woodland", lexicon), FACTS)
    assert (fault.kind, fault.category) == ("noun", "forest")
    assert str(fault) == "names 'forest', which is not annotated"
    assert find_faults(parse_caption("no forest", lexicon), FACTS) == []


def test_cells_cover_the_grid():
    centres = [[cell_at(x, y, 90, 60) for x in (10, 45, 80)] for y in (10, 30, 50)]
    assert centres == [list(row) for row in CELLS]
    assert cell_at(30.0, 19.9, 90, 60) == "top" and cell_at(90, 60, 90, 60) == "bottom right"
    assert [stated_count(n) for n in (0, 10, 11)] == [0, 10, "more than ten"]
    assert stated_count(3, is_complete=False) == "several"
