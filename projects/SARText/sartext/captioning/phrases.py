"""The phrases of a lexicon, ready to be found in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmovseg.projects.sartext.captioning.facts import MANY, SEVERAL

if TYPE_CHECKING:
    from mmovseg.projects.sartext.captioning.lexicon import Lexicon

_WORD = re.compile(r"\w+|[.;,:()%]")
_CLAUSE_ENDS = (".", ";")
_PERCENT = ("percent", "%")
_ONE_KIND = {"sizes": "size", "arrangements": "arrangement", "scenes": "scene", "courses": "course"}
_PLACES = ("cells", "halves")


@dataclass(frozen=True)
class Phrase:
    """Some words with what they mean, for example ("at", "the", "top"), "place", "top"."""

    words: tuple[str, ...]
    kind: str
    value: Any


def split_words(text: str) -> list[str]:
    """Return the words and stops of a text in lower case; hyphens and underscores separate words."""
    return _WORD.findall(text.casefold().replace("_", " "))


class PhraseTable:
    """The phrases of a lexicon by their first word, longest first."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.by_first: dict[str, list[Phrase]] = {}
        for text, kind, value in _phrases(lexicon):
            words = tuple(split_words(text))
            if words:
                self.by_first.setdefault(words[0], []).append(Phrase(words, kind, value))
        for phrases in self.by_first.values():
            phrases.sort(key=lambda phrase: -len(phrase.words))

    def scan(self, text: str) -> Iterator[tuple[str, Any]]:
        """Yield kind and value of the phrases, figures and clause ends of a text; other words are passed over."""
        words = split_words(text)
        start = 0
        while start < len(words):
            phrase = self._longest(words, start)
            if phrase is not None:
                yield phrase.kind, phrase.value
                start += len(phrase.words)
                continue
            if words[start] in _CLAUSE_ENDS:
                yield "end", words[start]
            elif words[start].isdecimal():
                is_share = start + 1 < len(words) and words[start + 1] in _PERCENT
                yield ("percent" if is_share else "number"), int(words[start])
            start += 1

    def _longest(self, words: list[str], start: int) -> Phrase | None:
        for phrase in self.by_first.get(words[start], ()):
            if phrase.words == tuple(words[start : start + len(phrase.words)]):
                return phrase
        return None


def _phrases(lexicon: Lexicon) -> Iterator[tuple[str, str, Any]]:
    words = lexicon.words
    for key, texts in words["numbers"].items():
        value = {"more": MANY, "several": SEVERAL}.get(key)
        yield from ((text, "number", int(key) if value is None else value) for text in texts)
    yield "without", "number", 0
    for section, kind in _ONE_KIND.items():
        for key, texts in words[section].items():
            yield from ((text, kind, key) for text in texts)
    for section in _PLACES:
        for key, texts in words[section].items():
            yield from ((text, "place", key) for text in texts)
    for section in ("levels", "plural_levels"):
        for key, texts in words[section].items():
            yield from ((text.removesuffix("{noun}"), "level", key) for text in texts)
    for key, texts in words["relations"].items():
        yield from ((text.removeprefix("{a}").removesuffix("{b}"), "relation", key) for text in texts)
    for texts in words["areas"].values():
        yield from ((text, "unit", "area") for text in texts)
    for name, noun in lexicon.nouns.items():
        yield from ((text, "noun", name) for text in noun.surfaces)
