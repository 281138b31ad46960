"""Optical captions after the rewriting rules: what goes, what goes with it, and that the rest reads as English."""

from __future__ import annotations

import json
import random

import pytest

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.rewriting.lexicon import default_lexicon, load_lexicon
from mmovseg.projects.sartext.captioning.rewriting.phrases import agree, plural_of, third_person
from mmovseg.projects.sartext.captioning.rewriting.rules import CaptionRewriter, sounds_like_vowel

CASES = {
    # attributes before a noun
    "Many white planes are parked near a dark green forest .": "many planes are parked near a forest",
    "a large, white and round tank stands in the factory": "a large and round tank stands in the factory",
    "a red and white airplane is on the long gray runway": "an airplane is on the long runway",
    "an orange house is near an old unique hexagonal church": "a house is near a hexagonal church",
    "a very wide blue-green river bends": "a wide river bends",
    "five houses stand beside a white roofed factory": "five houses stand beside a factory",
    "some silver gray star like buildings are in rows": "some buildings are in rows",
    "a fan shaped green pond lies near an eye shaped hall": "a fan shaped pond lies near an eye shaped hall",
    "an eight shaped ramp and a large area of tall green trees was built": (
        "an eight shaped ramp and a large area of tall trees was built"
    ),
    # phrases that lose their head
    "houses with red roofs arranged in rows are near the road": "houses arranged in rows are near the road",
    "many cars of various colors, trucks and buses are on the road": "many cars and buses are on the road",
    "a bridge with people on it crosses the river": "a bridge crosses the river",
    "the mountain covered with snow is near a lake": "the mountain is near a lake",
    "a river with dark water goes through the forest": "a river goes through the forest",
    "cars are parked in the shadow of the wall": "cars are parked",
    "waves reach a white beach throwing up foam and some plants": "waves reach a beach",
    "waves reach the beach throwing up white foam": "waves reach the beach",
    # lists that lose a member
    "a red car, a green tree and people are on the road": "a car and a tree are on the road",
    "some people and several cars are in the square": "several cars are in the square",
    "some people and cars are in the square": "some cars are in the square",
    "there are some green trees and dead trees near the road": "there are some trees near the road",
    "six silvery tanks and six white tanks are in the field": "six tanks and six tanks are in the field",
    "two white tanks and a grey one are next to the long road": "two tanks and another are next to the long road",
    "buildings with red roofs and a white one are near the road": "buildings are near the road",
    # clauses that lose subject, object or predicate
    "the road crosses a bridge while the sky is cloudy": "the road crosses a bridge",
    "the houses, whose roofs are red, are arranged in rows": "the houses are arranged in rows",
    "a square which looks like a chessboard lies between two roads": "a square lies between two roads",
    "the stadium is green and surrounded by parking lots": "the stadium is surrounded by parking lots",
    # the medium, once
    "This is an aerial photo of a harbor with boats": "this is a SAR image of a harbor with boats",
    "in the picture there is a road and the picture shows a bridge": (
        "in the SAR image there is a road and the image shows a bridge"
    ),
    "a high resolution satellite image of two bridges": "a SAR image of two bridges",
    # watermarks and stamps, in the manner of machine-made descriptions
    "A bridge crosses the river, with the Google Earth watermark in the corner.": "a bridge crosses the river",
    "Two ships lie in a port. The scale bar is 1:5000 and the date is 2019-05-12.": "two ships lie in a port",
    "an image of a building, taken at 10:30 am on 12/05/2019": "a SAR image of a building",
    "The image shows a port at 34.05N with cranes": "the SAR image shows a port",
    # grammar mended
    "A river go through the area with some white house": "a river goes through the area with some house",
    "there is many trees and a yellow field": "there are many trees and a field",
    "two swimming pool are near a pink building": "two swimming pools are near a building",
    "we can see two white boats near the coast": "there are two boats near the coast",
    "a road go across another roads with black cars": "a road goes across other roads with cars",
    "there are some bushes with some gray roads go through": "there are some bushes with some roads that go through",
    "a park with two trails go through a green lawn": "a park with two trails go through a lawn",
    "three smaller ones stand next with blue pipes": "three smaller ones stand next with pipes",
    "on both sides are houses lined with grey roofs": "on both sides are houses",
    "a tree lined road is near a black tower": "a tree lined road is near a tower",
    # what was lost in published files
    "beside the road  there are some storagetanks and a playgound": (
        "beside the road, there are some storage tanks and a playground"
    ),
}


@pytest.fixture(scope="module")
def rewriter():
    return CaptionRewriter(min_content_words=1)


@pytest.mark.parametrize("before", CASES)
def test_a_caption_becomes(rewriter, before):
    assert rewriter.rewrite(before).text == CASES[before]


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("The water is blue and clear.", "nothing left"),
        ("White snow covers the peaks.", "nothing left"),
        ("The shadow of the tower falls on the road.", "nothing left"),
        ("the square, and many people are waiting for the train", "nothing left"),
        (" . ", "empty"),
        ("", "empty"),
    ],
)
def test_a_caption_is_dropped(rewriter, before, reason):
    done = rewriter.rewrite(before)
    assert (done.text, done.reason) == (None, reason)


def test_what_cannot_be_read_is_dropped_and_not_guessed_at(rewriter):
    done = rewriter.rewrite("red the are of runs green which which")
    assert (done.text, done.reason) == (None, "not read")
    whole = rewriter.rewrite("the are of runs which which")
    assert whole.text == "the are of runs which which"  # nothing had to go


def test_short_captions_are_dropped_by_their_content_words():
    text = "two tennis courts are next to the road"
    assert CaptionRewriter().rewrite(text).reason == "short"
    assert CaptionRewriter().rewrite(text).content_words == 4
    assert CaptionRewriter(min_content_words=4).rewrite(text).text == text


def test_rules_are_named(rewriter):
    assert rewriter.rewrite("many trees line the wide road").rules == ()
    assert rewriter.rewrite("an aerial photo of an orange house").rules == ("article", "colour", "medium")
    assert "existential" in rewriter.rewrite("we can see two bridges").rules


def test_the_result_stays_the_same_when_rewritten_again(rewriter):
    for after in CASES.values():
        assert rewriter.rewrite(after).text == after


def test_random_sentences_hold_no_banned_word_and_are_deterministic():
    lexicon = default_lexicon()
    rng = random.Random(5)
    words = [word for kinds in lexicon.banned.values() for part in kinds.values() for word in part]
    words += 200 * ["trees", "road", "the", "a", "and", ",", "is", "are", "with", "of", "near", "which", "parked"]
    first, second = CaptionRewriter(min_content_words=1), CaptionRewriter(min_content_words=1)
    for _ in range(300):
        text = " ".join(rng.choices(words, k=rng.randint(3, 14)))
        done = first.rewrite(text)
        assert done == second.rewrite(text)
        assert done.text is None or lexicon.find_banned(done.text) == [], text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a red roof", [("red", "colour")]),
        ("A WHITE-roofed house", [("white-roofed", "colour")]),
        ("a number of cars as well as trucks", []),
        ("a SAR image of a port", []),
        ("an eye shaped pond", []),
        ("the water appears as a dark smooth area", []),
        ("a dark area", [("dark", "colour")]),
        ("at 10:30 on 2019-05-12", [("10:30", "watermark"), ("2019-05-12", "watermark")]),
        ("a photo with white lines like a sunny day", None),
        ("residential area with rainforest and a lightweight hangar", []),
    ],
)
def test_banned_words_are_found_whole(text, found):
    words = [(one.word, one.category) for one in default_lexicon().find_banned(text)]
    if found is None:
        assert [word for word, _ in words] == ["photo", "white lines", "like", "sunny", "day"]
    else:
        assert words == found


@pytest.mark.parametrize(
    ("word", "vowel"),
    [("hour", True), ("s-shaped", True), ("u-shaped", False), ("unique", False), ("unimportant", True), ("one", False)]
    + [
        ("island", True),
        ("SAR", False),
        ("8", True),
        ("18", True),
        ("80", True),
        ("1", False),
        ("l", True),
        ("t", False),
    ],
)
def test_articles_follow_the_sound(word, vowel):
    assert sounds_like_vowel(word) is vowel


def test_verbs_and_nouns_take_their_number():
    lexicon = default_lexicon()
    assert [third_person(verb) for verb in ("cross", "go", "carry", "lay", "have")] == [
        "crosses",
        "goes",
        "carries",
        "lays",
        "has",
    ]
    assert [plural_of(noun) for noun in ("church", "factory", "bay", "road")] == [
        "churches",
        "factories",
        "bays",
        "roads",
    ]
    assert agree("crosses", True, lexicon) == "cross"
    assert agree("is", True, lexicon) == "are"
    assert agree("cross", False, lexicon) == "crosses"
    assert agree("built", False, lexicon) == "built"
    assert agree("cross", None, lexicon) == "cross"


def test_own_word_lists(tmp_path):
    (tmp_path / "banned.json").write_text('{"colour": {"modifier": ["tall"]}}')
    lexicon = load_lexicon(banned=tmp_path / "banned.json")
    done = CaptionRewriter(lexicon, min_content_words=1).rewrite("a tall red house")
    assert done.text == "a red house"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "must hold a JSON object"),
        ("{", "is not valid JSON"),
        ('{"colour": ["red"]}', "'colour' must map some of"),
        ('{"colour": {"shape": ["red"]}}', "'colour' must map some of"),
        ('{"colour": {"noun": "red"}}', "must be a list of words"),
        ('{"colour": {"noun": ["Red"]}}', "must hold lower-case words, got 'Red'"),
    ],
)
def test_bad_word_lists_are_refused(tmp_path, content, says):
    path = tmp_path / "banned.json"
    path.write_text(content)
    with pytest.raises(UserError, match=says) as error:
        load_lexicon(banned=path)
    assert str(path) in str(error.value)


def test_shipped_lists_are_in_order():
    lexicon = default_lexicon()
    both = {word for word in lexicon.spelling if word in lexicon.spelling.values()}
    assert both == set(), "a misspelling that is also a correction would depend on the order"
    text = json.dumps([lexicon.banned, lexicon.grammar])
    assert text == text.lower()


@pytest.mark.realdata
def test_published_captions_keep_no_banned_word(realdata):
    lexicon = default_lexicon()
    rewriter = CaptionRewriter()
    for name, least in (("rsicd", 0.5), ("ucm", 0.45), ("sydney", 0.5)):
        captions = (realdata / f"captions/text/{name}_precomp/test_caps.txt").read_text().splitlines()[::9]
        done = [rewriter.rewrite(caption) for caption in captions]
        assert not any(lexicon.find_banned(one.text) for one in done if one.text)
        assert sum(one.reason == "not read" for one in done) < 0.03 * len(done)
        assert sum(one.text is not None for one in done) > least * len(done), name
