"""The lexicon as data: it serves every shipped vocabulary, and own files are checked."""

from __future__ import annotations

import json

import pytest

from mmovseg.data.vocabulary import get_vocabulary, list_vocabularies
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.lexicon import load_lexicon, plural_of
from mmovseg.projects.sartext.captioning.parsing import parse_caption


@pytest.fixture(scope="module")
def lexicon():
    return load_lexicon()


def test_every_slot_has_five_templates(lexicon):
    words = lexicon.words
    slots = {f"templates.{slot}": words["templates"][slot] for slot in words["templates"]}
    for section in ("cells", "halves", "arrangements", "scenes", "levels", "plural_levels", "relations", "courses"):
        slots |= {f"{section}.{key}": phrases for key, phrases in words[section].items()}
    slots |= {"percents": words["percents"], "areas": words["areas"]["plural"], "one": words["numbers"]["1"]}
    assert {name: len(set(phrases)) for name, phrases in slots.items() if len(set(phrases)) < 5} == {}


@pytest.mark.parametrize(("dataset", "flavour"), list_vocabularies())
def test_every_vocabulary_has_nouns_that_read_back(lexicon, dataset, flavour):
    vocabulary = get_vocabulary(dataset, flavour)
    limited = lexicon.for_classes(vocabulary.names)
    assert set(limited.nouns) <= set(vocabulary.names)
    assert all(not lexicon.is_named(name) for name in set(vocabulary.names) - set(limited.nouns))
    surfaces = [(form, name) for name, noun in limited.nouns.items() for form in noun.surfaces]
    assert len({form for form, _ in surfaces}) == len(surfaces)
    for form, name in surfaces:
        assert [mention.category for mention in parse_caption(f"a SAR image of {form} here", limited).mentions] == [
            name
        ]


def test_shared_synonyms_are_used_by_neither(lexicon):
    nouns = lexicon.for_classes(["airplane", "aircraft", "vehicle", "my_Own-thing"]).nouns
    assert nouns["airplane"].singular == ("airplane",) and nouns["aircraft"].plural == ("aircraft",)
    assert nouns["vehicle"].singular == ("vehicle", "motor vehicle")
    assert nouns["my_Own-thing"].singular == ("my own thing",) and nouns["my_Own-thing"].cover == ("my own things",)
    with pytest.raises(UserError, match="'farmland' and 'agriculture' are both called 'farmland'"):
        lexicon.for_classes(["farmland", "agriculture"])


def test_plurals_of_unknown_nouns():
    assert [plural_of(noun) for noun in ("dish", "jetty", "quay", "crane", "bus")] == [
        "dishes",
        "jetties",
        "quays",
        "cranes",
        "buses",
    ]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_an_own_lexicon_replaces_sections_and_adds_nouns(tmp_path, lexicon):
    path = write(
        tmp_path / "own.json",
        {
            "sizes": {"small": ["tiny"], "medium": ["middling"], "large": ["huge"]},
            "nouns": {
                "ship": {"singular": ["boat"], "plural": ["boats"]},
                "crane": {"singular": ["c"], "plural": ["d"]},
            },
        },
    )
    own = load_lexicon(path)
    assert own.words["sizes"]["small"] == ["tiny"] and own.words["cells"] == lexicon.words["cells"]
    nouns = own.for_classes(["ship", "crane", "aircraft"]).nouns
    assert (nouns["ship"].singular, nouns["crane"].plural, nouns["aircraft"].singular[0]) == (
        ("boat",),
        ("d",),
        "aircraft",
    )
    assert own.sha256 != lexicon.sha256
    assert load_lexicon().sha256 == lexicon.sha256


SIZES = {"small": ["small"], "medium": ["mid"], "large": ["large"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ([], "is not a JSON object"),
        ({"colours": {}}, "has the unknown section 'colours'"),
        ({"sizes": {"small": ["small"]}}, "section 'sizes' needs exactly the keys: small, medium, large"),
        ({"sizes": SIZES | {"small": []}}, "'sizes.small' must be a list with at least one text"),
        ({"sizes": SIZES | {"small": [3]}}, "'sizes.small' holds 3, which is no text"),
        ({"sizes": SIZES | {"small": ["large"]}}, "'large' stands for both 'sizes.small' and 'sizes.large'"),
        ({"sizes": SIZES | {"small": ["{noun} small"]}}, "must have each of these slots once: none"),
        ({"percents": ["about {percent}"]}, "'about {percent}' must have each of these slots once: {percent}, {noun}"),
        ({"nouns": []}, "section 'nouns' must be an object"),
        ({"nouns": {"a": {"singular": ["b"]}}}, "noun 'a' needs as many plurals as singulars"),
        ({"nouns": {"a": {"dual": ["b"]}}}, "noun 'a' needs some of: singular, plural, cover"),
        (
            {"levels": {"dominant": ["{noun} mostly"], "large": ["much {noun}"], "some": ["some {noun}"]}},
            "must end with",
        ),
    ],
)
def test_bad_lexicons_are_refused(tmp_path, content, message):
    path = write(tmp_path / "bad.json", content)
    with pytest.raises(UserError) as caught:
        load_lexicon(path)
    assert message in str(caught.value) and "bad.json" in str(caught.value)


def test_a_missing_lexicon_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json' cannot be read"):
        load_lexicon(tmp_path / "none.json")
