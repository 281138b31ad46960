"""The word lists of the rewriting rules: what may not stand in a caption of a SAR image, and the classes of words.

The lists are data (`banned_words.json`, `grammar.json`, `spelling.json` in this folder, or files that the user names).
`banned_words.json` maps a category (colour, lighting, weather, medium, watermark, texture, filler, simile) to lists of
modifiers, nouns, verbs, adverbs and prepositions: what happens to a sentence depends on what kind of word goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from mmovseg.data.text import read_text
from mmovseg.errors import UserError

_FOLDER = Path(__file__).parent
KINDS = ("modifier", "noun", "verb", "adverb", "preposition")
"""What a banned word can be; the same word may be several, the order decides which is asked first."""
ALLOWED_PHRASES = tuple(
    f"{verb} as {phrase}"
    for verb in ("appears", "appear")
    for phrase in ("a dark smooth area", "dark smooth areas", "bright returns")
)
"""What the verified SAR vocabulary says, see `sar_terms`; "dark" alone stays banned."""
_BANNED_PHRASES = {"banned noun": "texture", "banned modifier": "colour", "dropped": "filler"}
_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_STAMPS = re.compile(
    r"\b\d{1,2}:\d{2}(?::\d{2})?(?:\s?[ap]\.?m\b)?"  # a time, or a scale 1:50
    r"|\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b|\b\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}\b"  # a date
    r"|\b1\s?:\s?\d[\d,. ]*\d\b"  # a map scale
    r"|\b(?:19|20)\d{2}\b"  # a year
    r"|\b\d+(?:\.\d+)?\s?°[\d'\".\s]*[nsew]?\b|\b\d+\.\d+\s?[nsew]\b"  # coordinates
    r"|\b\d+(?:\.\d+)?\s?(?:m|cm|km|meters?|metres?)\s?/\s?(?:px|pixels?)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class BannedWord:
    """A word that a caption of a SAR image may not hold, and the category that bans it."""

    word: str
    category: str


@dataclass(frozen=True)
class Lexicon:
    """All word lists.

    Attributes:
        banned: category -> kind (see `KINDS`) -> words.
        grammar: class of words -> words; `phrases` holds words that count as one.
        spelling: misspelt -> meant; phrases -> what they are written as.
    """

    banned: Mapping[str, Mapping[str, tuple[str, ...]]]
    grammar: Mapping[str, Any]
    spelling: Mapping[str, str]

    @cached_property
    def category_of(self) -> dict[str, dict[str, str]]:
        """Kind -> word -> category; the first category that names a word has it."""
        table: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
        for category, kinds in self.banned.items():
            for kind, words in kinds.items():
                for word in words:
                    table[kind].setdefault(word, category)
        return table

    @cached_property
    def phrases(self) -> dict[str, tuple[str, ...]]:
        """Phrase -> its classes, longest first, so that "in front of" is not read as "in front"."""
        found: dict[str, list[str]] = {}
        for name, phrases in self.grammar["phrases"].items():
            for phrase in phrases:
                found.setdefault(phrase, []).append(name)
        for phrase in self.category_of["preposition"]:
            if " " in phrase:
                found.setdefault(phrase, []).append("banned preposition")
        return {phrase: tuple(found[phrase]) for phrase in sorted(found, key=lambda one: (-len(one.split()), one))}

    @cached_property
    def _anywhere(self) -> dict[str, str]:
        table: dict[str, str] = {}
        for kind in KINDS:
            for word, category in self.category_of[kind].items():
                table.setdefault(word, category)
        for name, category in _BANNED_PHRASES.items():
            for phrase in self.grammar["phrases"].get(name, ()):
                table.setdefault(phrase, category)
        return table

    @cached_property
    def _allowed(self) -> frozenset[str]:
        kept = [words for name, words in self.grammar["phrases"].items() if name not in _BANNED_PHRASES]
        return frozenset((*ALLOWED_PHRASES, *(phrase for words in kept for phrase in words)))

    @cached_property
    def _longest(self) -> int:
        return max(len(phrase.split()) for phrase in (*self._allowed, *self._anywhere))

    @cached_property
    def _classes(self) -> dict[str, frozenset[str]]:
        return {name: frozenset(words) for name, words in self.grammar.items() if name != "phrases"}

    @cached_property
    def replacements(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        """Phrases that are written as others ("green belt": "vegetation strip"), longest first."""
        phrases = sorted((wrong for wrong in self.spelling if " " in wrong), key=lambda one: (-len(one), one))
        return tuple((re.compile(rf"(?<![\w-]){re.escape(wrong)}(?![\w-])"), self.spelling[wrong]) for wrong in phrases)

    def words(self, name: str) -> frozenset[str]:
        """Return a class of words of the grammar; empty if there is none of that name."""
        return self._classes.get(name, frozenset())

    def colour_compound(self, word: str) -> bool:
        """Say whether a word with hyphens names a colour: "blue-green", "white-roofed"."""
        modifiers = self.category_of["modifier"]
        return "-" in word and any(modifiers.get(part) == "colour" for part in word.split("-"))

    def find_banned(self, text: str) -> list[BannedWord]:
        """Return every banned word of a text in its order; empty for a caption that a SAR image can have.

        "SAR image" is allowed, as are set phrases that use a banned word in another sense ("a number of").
        """
        lowered = text.lower()
        found = [(match.start(), BannedWord(match.group().strip(), "watermark")) for match in _STAMPS.finditer(lowered)]
        matches = list(_WORD.finditer(lowered))
        at = 0
        while at < len(matches):
            for length in range(min(self._longest, len(matches) - at), 0, -1):
                phrase = " ".join(match.group() for match in matches[at : at + length])
                if phrase in self._allowed or phrase in self._anywhere:
                    break
            category = None if phrase in self._allowed else self._anywhere.get(phrase)
            if category is None and self.colour_compound(phrase):
                category = "colour"
            after = matches[at + length].group() if at + length < len(matches) else ""
            if category is not None and not (after == "shaped" and category != "colour"):  # "eye shaped" is a shape
                found.append((matches[at].start(), BannedWord(phrase, category)))
            at += length
        return [word for _, word in sorted(found, key=lambda item: item[0])]


def replace_stamps(text: str) -> str:
    """Write `timestamp`, a banned noun, for times, dates, coordinates and map scales."""
    return _STAMPS.sub("timestamp", text)


def load_lexicon(
    *,
    banned: str | Path = _FOLDER / "banned_words.json",
    grammar: str | Path = _FOLDER / "grammar.json",
    spelling: str | Path = _FOLDER / "spelling.json",
) -> Lexicon:
    """Read the word lists.

    Args:
        banned: category -> kind -> words.
        grammar: class -> words, and `phrases`.
        spelling: misspelt -> meant.

    Raises:
        UserError: a file cannot be read, or holds something else than lists of lower-case words.
    """
    lists = _read_object(banned)
    for category, kinds in lists.items():
        if not isinstance(kinds, dict) or not set(kinds) <= set(KINDS):
            raise UserError(f"'{banned}': '{category}' must map some of {', '.join(KINDS)} to words, got {kinds!r:.80}")
        for kind, words in kinds.items():
            _check_words(words, f"'{banned}': '{category}', '{kind}'")
    classes = _read_object(grammar)
    phrases = classes.get("phrases")
    if not isinstance(phrases, dict):
        raise UserError(f"'{grammar}': 'phrases' must map classes to phrases, got {phrases!r:.80}")
    for name, words in [*phrases.items(), *((key, value) for key, value in classes.items() if key != "phrases")]:
        _check_words(words, f"'{grammar}': '{name}'")
    meant = _read_object(spelling)
    _check_words([*meant, *meant.values()], f"'{spelling}'")
    return Lexicon(lists, classes, meant)


@lru_cache(maxsize=1)
def default_lexicon() -> Lexicon:
    """Return the word lists that ship with the project."""
    return load_lexicon()


def _read_object(path: str | Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"'{path}' is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' must hold a JSON object, got {content!r:.60}")
    return content


def _check_words(words: object, where: str) -> None:
    values: Iterable[object] = [*words, *words.values()] if isinstance(words, dict) else words  # type: ignore[assignment]
    if not isinstance(words, list | dict):
        raise UserError(f"{where} must be a list of words, got {words!r:.60}")
    for word in values:
        if not isinstance(word, str) or not word.strip() or word != word.lower():
            raise UserError(f"{where} must hold lower-case words, got {word!r:.60}")
