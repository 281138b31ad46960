"""When an answer to a question about an image is right: normalisation, word boundaries, closed and open questions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mmovseg.data.text import read_text
from mmovseg.errors import UserError

_SYNONYMS = Path(__file__).with_name("answer_synonyms.json")
_ARTICLES = frozenset(["a", "an", "the"])
# a minus sign stands before a number and after nothing: the dash of "10-15" is none
_WORD = re.compile(r"(?:(?<![\w.,-])-)?\d+(?:[.,]\d+)*|[^\W_]+(?:[-'][^\W_]+)*")
_LETTER = re.compile(r"\bA\b(?![-']?[^\W_]|\s+[^\W_])")  # an article has a word after it, the letter of a choice none
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS: dict[str, int] = {
    **{word: value for value, word in enumerate(_SMALL)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
    **{f"{ten}-{word}": 10 * t + value for t, ten in enumerate(_TENS, 2) for value, word in enumerate(_SMALL[1:10], 1)},
}
"""zero .. ninety-nine."""
LARGEST_CLOSED_NUMBER = 99


@dataclass(frozen=True)
class AnswerRules:
    """How answers are compared.

    Attributes:
        synonyms: words or phrases in lower case -> what they are counted as; longer phrases go first.
        drop_articles: whether a, an and the are left out.
        number_words: whether "three" is the number 3.
    """

    synonyms: Mapping[str, str]
    drop_articles: bool = True
    number_words: bool = True

    def words(self, answer: str) -> list[str]:
        """Return the words of an answer as they are compared: lower case, no punctuation, synonyms replaced.

        A capital A that no word follows is no article but the letter of a choice: "The answer is A.", "(A) ships".
        """
        text = answer.replace("’", "'").replace("−", "-")
        letters = {match.start() for match in _LETTER.finditer(text)}
        words = [(match.group().lower(), match.start() in letters) for match in _WORD.finditer(text)]
        found = [word for word, _ in words]
        if self.drop_articles:  # an answer that is nothing else stays
            found = [word for word, is_letter in words if is_letter or word not in _ARTICLES] or found
        if self.number_words:
            found = _numbers(found)
        return self._replaced(found)

    def normal_form(self, answer: str) -> str:
        """Return those words with blanks between."""
        return " ".join(self.words(answer))

    def _replaced(self, words: list[str]) -> list[str]:
        longest = max((len(phrase.split()) for phrase in self.synonyms), default=0)
        found: list[str] = []
        start = 0
        while start < len(words):
            for length in range(min(longest, len(words) - start), 0, -1):
                stand_in = self.synonyms.get(" ".join(words[start : start + length]))
                if stand_in is not None:
                    found.extend(stand_in.split())
                    start += length
                    break
            else:
                found.append(words[start])
                start += 1
        return found


def _numbers(words: Sequence[str]) -> list[str]:
    """Return words with numbers as figures; "twenty one" is one number."""
    joined: list[str] = []
    for word in words:
        if joined and f"{joined[-1]}-{word}" in NUMBER_WORDS:
            joined[-1] = f"{joined[-1]}-{word}"
        else:
            joined.append(word)
    return [_number(word) for word in joined]


def _number(word: str) -> str:
    value = NUMBER_WORDS.get(word)
    if value is not None:
        return str(value)
    sign, figures = ("-", word[1:]) if word.startswith("-") else ("", word)
    if not figures[0].isdigit():
        return word
    whole, point, rest = figures.replace(",", "").partition(".")
    return f"{sign}{whole.lstrip('0') or '0'}{point}{rest}"


@lru_cache(maxsize=8)
def load_answer_rules(synonyms: str | None = None, *, drop_articles: bool = True) -> AnswerRules:
    """Return the rules with the synonyms of a JSON file, an object of phrase and stand-in; None = those that ship.

    Raises:
        UserError: the file is not readable, or holds something else.
    """
    path = _SYNONYMS if synonyms is None else Path(synonyms)
    text = read_text(path, "synonyms")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"synonyms '{path}' cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) and value for value in content.values()):
        raise UserError(f"synonyms '{path}' must be a JSON object of phrase and stand-in")
    return AnswerRules({" ".join(key.lower().split()): value.lower() for key, value in content.items()}, drop_articles)


def is_closed(truth: str, rules: AnswerRules) -> bool:
    """Return whether an answer is yes, no or a whole number from 0 to 99, which must be met exactly."""
    form = rules.normal_form(truth)
    return form in ("yes", "no") or (form.isascii() and form.isdigit() and int(form) <= LARGEST_CLOSED_NUMBER)


@dataclass(frozen=True)
class AnswerScore:
    """One answer against the truth.

    Attributes:
        correct: of a closed question `exact`, of an open one `contained`.
        closed: whether the truth is of the closed kind.
        exact: the same words.
        contained: the words of the truth occur in the answer, whole and in a row.
        f1: harmonic mean of precision and recall of words, 0..1.
    """

    correct: bool
    closed: bool
    exact: bool
    contained: bool
    f1: float


def score_answer(answer: str, truth: str, rules: AnswerRules, *, closed: bool | None = None) -> AnswerScore:
    """Compare an answer with the truth.

    Containment goes by whole words: "no" is not in "not" nor in "none", "1" is not in "10".

    Args:
        answer: of the model, may be empty.
        truth: not empty.
        rules: of normalisation.
        closed: whether the question has a closed answer; None = as `is_closed` says of the truth.
    """
    given, wanted = rules.words(answer), rules.words(truth)
    exact, contained = given == wanted, contains(given, wanted)
    is_strict = is_closed(truth, rules) if closed is None else closed
    return AnswerScore(exact if is_strict else contained, is_strict, exact, contained, word_f1(given, wanted))


def contains(words: Sequence[str], part: Sequence[str]) -> bool:
    """Return whether `part`, not empty, occurs in `words` in a row."""
    if not part:
        return False
    return any(list(words[start : start + len(part)]) == list(part) for start in range(len(words) - len(part) + 1))


def word_f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the F1 of words, each counted as often as both have it."""
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2.0 * common / (len(given) + len(wanted)) if common else 0.0
