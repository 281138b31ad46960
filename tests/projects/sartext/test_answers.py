"""When an answer is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmovseg.data.miniearth.regions import CLASS_NAMES
from mmovseg.errors import UserError
from mmovseg.projects.sartext.evaluation.answers import (
    AnswerRules,
    contains,
    is_closed,
    load_answer_rules,
    score_answer,
    word_f1,
)

RULES = load_answer_rules()


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The Ship.", "ship"),
        ("There are THREE vessels!", "there are 3 ship"),
        ("twenty-one", "21"),
        ("3,000 planes", "3000 aircraft"),
        ("a storage tank", "tank"),
        ("in the upper left", "in top left"),
        ("A", "a"),
        ("The answer is A.", "answer is a"),
        ("(A) a ship", "a ship"),
        ("A ship's A-frame", "ship's a-frame"),
        ("Twenty one ships and thirty-two, twenty", "21 ship and 32 20"),
        ("one twenty", "1 20"),
        ("03 and 0 and 00 and 007.50", "3 and 0 and 0 and 7.50"),
        ("-5 and −07", "-5 and -7"),
        ("10-15 or l-5", "10 15 or l-5"),
        ("...", ""),
    ],
)
def test_normal_form(answer: str, form: str) -> None:
    assert RULES.normal_form(answer) == form


@pytest.mark.parametrize("answer", [*(str(number) for number in range(150)), "yes", "no", *CLASS_NAMES])
def test_plain_answers_stay_as_they_are(answer: str) -> None:
    assert RULES.normal_form(answer) == answer and RULES.normal_form(f"The {answer}.") == answer


def test_longer_synonyms_go_first_and_only_whole_words_count() -> None:
    rules = AnswerRules({"oil tank": "depot", "oil": "fuel", "tank": "vat"})
    assert rules.normal_form("an oil tank and oil and tanks") == "depot and fuel and tanks"


@pytest.mark.parametrize(
    ("answer", "truth", "correct"),
    [
        ("no", "no", True),
        ("None", "no", False),
        ("not at all", "no", False),
        ("yes, there is one", "yes", False),  # closed: nothing else may be said
        ("Yes.", "yes", True),
        ("three", "3", True),
        ("13", "3", False),
        ("10", "1", False),
        ("there is a big harbour at the coast", "harbor", True),
        ("forests", "forest", False),
        ("the left", "top left", False),
        ("at the top left of it", "top left", True),
        ("left top", "top left", False),
        ("120", "120 ships", False),
        ("about 120 vessels", "120 ships", True),
        ("", "ship", False),
        ("A", "A", True),
        ("The answer is A", "A", True),
        ("A. ships", "A", True),
        ("a ship", "A", False),
        ("B", "A", False),
        ("twenty one", "21", True),
        ("03", "3", True),
        ("-5", "5", False),
        ("5", "-5", False),
        ("it is -5 dB", "-5 dB", True),
    ],
)
def test_answers_go_by_whole_words(answer: str, truth: str, correct: bool) -> None:
    assert score_answer(answer, truth, RULES).correct is correct


def test_closed_questions_are_yes_no_and_small_numbers() -> None:
    closed = {truth: is_closed(truth, RULES) for truth in ("yes", "No", "0", "ninety-nine", "100", "1.5", "forest")}
    assert closed == {
        "yes": True,
        "No": True,
        "0": True,
        "ninety-nine": True,
        "100": False,
        "1.5": False,
        "forest": False,
    }
    assert not score_answer("dense forest", "forest", RULES, closed=True).correct
    assert score_answer("dense forest", "forest", RULES).contained


def test_f1_counts_words_as_often_as_both_have_them() -> None:
    assert word_f1("a a b".split(), "a b b c".split()) == pytest.approx(2 * 2 / 7)
    assert score_answer("two big ships", "two ships", RULES).f1 == pytest.approx(2 * 2 / 5)
    assert word_f1([], ["a"]) == 0.0


def test_contains_wants_words_in_a_row() -> None:
    assert contains("a b c".split(), ["b", "c"]) and not contains("a b c".split(), ["a", "c"])
    assert not contains(["a"], []) and not contains([], ["a"])


def test_own_synonyms_are_read_and_bad_ones_told(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text('{"Big  Boat": "Ship"}', encoding="utf-8")
    assert load_answer_rules(str(path)).normal_form("a big boat") == "ship"
    bad = tmp_path / "bad.json"
    bad.write_text('["ship"]', encoding="utf-8")
    with pytest.raises(UserError, match=r"bad.json' must be a JSON object of phrase and stand-in"):
        load_answer_rules(str(bad))
    with pytest.raises(UserError, match=r"none.json' cannot be read"):
        load_answer_rules(str(tmp_path / "none.json"))
