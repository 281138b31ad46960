"""Words and templates of the captions as data: the JSON lexicon, and the nouns that a set of classes goes by.

The shipped file is ``lexicons/captions.json``. Whoever wants other words gives a file with some of its sections; a
section replaces the shipped one, single nouns are added. What a lexicon can write, `parsing` can read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmovseg.data.text import read_text
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.facts import CELLS, HALVES, LARGEST_EXACT, SEVERAL
from mmovseg.projects.sartext.captioning.phrases import PhraseTable

_SHIPPED = Path(__file__).parent / "lexicons" / "captions.json"
_NUMBERS = (*map(str, range(LARGEST_EXACT + 1)), "more", SEVERAL)
_KEYS: dict[str, tuple[str, ...]] = {
    "numbers": _NUMBERS,
    "sizes": ("small", "medium", "large"),
    "cells": tuple(cell for row in CELLS for cell in row),
    "halves": HALVES,
    "arrangements": ("row", "cluster", "scattered"),
    "scenes": ("inshore", "offshore", "inland"),
    "levels": ("dominant", "large", "some"),
    "plural_levels": ("dominant", "large", "some"),
    "areas": ("singular", "plural"),
    "relations": ("along", "through", "surrounded", "beside"),
    "courses": ("left to right", "top to bottom"),
    "templates": ("objects", "absence", "spread", "scene", "cover"),
}
_LISTS = ("unnamed", "linear", "percents")
_SLOTS: dict[str, tuple[str, ...]] = {
    "levels": ("noun",),
    "plural_levels": ("noun",),
    "percents": ("percent", "noun"),
    "relations": ("a", "b"),
    "objects": ("objects",),
    "absence": ("absent",),
    "spread": ("group", "parts"),
    "scene": ("sentence", "scene"),
    "cover": ("items",),
}
_OPTIONAL_SLOTS = {"objects": {"there", "are"}}
_NOUN_FORMS = ("singular", "plural", "cover")
_MEANINGS: tuple[str, ...] = ("numbers", "sizes", "cells", "halves", "arrangements", "scenes", "courses")


@dataclass(frozen=True)
class Noun:
    """What one class is called.

    singular, plural: of single objects, equally many, the plain name first; empty for what cannot be counted.
    cover: of ground covered by the class, such as "water" or "buildings"; never empty.
    """

    singular: tuple[str, ...]
    plural: tuple[str, ...]
    cover: tuple[str, ...]

    @property
    def surfaces(self) -> tuple[str, ...]:
        """Every form, each once."""
        return tuple(dict.fromkeys((*self.singular, *self.plural, *self.cover)))


@dataclass(frozen=True)
class Lexicon:
    """A checked lexicon, limited to some classes.

    Attributes:
        words: the sections of the JSON file.
        sha256: of the words, so that a caption says what it was made with.
        nouns: class name as the data set spells it -> its words. Empty until `for_classes`.
    """

    words: Mapping[str, Any]
    sha256: str
    nouns: Mapping[str, Noun] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return str(self.words["version"])

    @cached_property
    def phrases(self) -> PhraseTable:
        """Everything that can be found in a text."""
        return PhraseTable(self)

    def templates(self, slot: str) -> list[str]:
        """Return the templates of a slot, such as ``objects``."""
        return self.words["templates"][slot]

    def is_named(self, class_name: str) -> bool:
        """Return whether captions speak of this class; not of "background" and the like."""
        return plain_name(class_name) not in self.words["unnamed"]

    def is_linear(self, class_name: str) -> bool:
        """Return whether elongated areas of this class are lines, as roads and rivers are."""
        return plain_name(class_name) in self.words["linear"]

    def for_classes(self, names: Iterable[str]) -> Lexicon:
        """Return the lexicon with the nouns of these classes.

        "Background" and the like get none. A class that the lexicon does not know goes by its own name. A synonym
        that two of the classes could share is used by neither; a class always keeps its first form.

        Raises:
            UserError: two classes go by the same first form.
        """
        nouns = {name: self._noun(name) for name in dict.fromkeys(names) if self.is_named(name)}
        firsts: dict[str, str] = {}
        for name, noun in nouns.items():
            for form in _first_forms(noun):
                if firsts.setdefault(form, name) != name:
                    raise UserError(f"the classes '{firsts[form]}' and '{name}' are both called '{form}' in captions")
        uses = Counter(form for noun in nouns.values() for form in noun.surfaces)
        kept = {name: _without_shared(noun, uses) for name, noun in nouns.items()}
        return replace(self, nouns=kept)

    def _noun(self, name: str) -> Noun:
        known = self.words["nouns"].get(plain_name(name))
        if known is None:
            plain = plain_name(name)
            known = {"singular": [plain], "plural": [plural_of(plain)]}
        singular, plural = tuple(known.get("singular", ())), tuple(known.get("plural", ()))
        return Noun(singular, plural, tuple(known.get("cover", plural)))


def plain_name(class_name: str) -> str:
    """Return a class name in lower case with single spaces for underscores and hyphens."""
    return " ".join(re.split(r"[\s_\-]+", class_name.strip().casefold()))


def plural_of(noun: str) -> str:
    """Return the regular plural of a noun that the lexicon does not know."""
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return f"{noun}es"
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _first_forms(noun: Noun) -> set[str]:
    return {forms[0] for forms in (noun.singular, noun.plural, noun.cover) if forms}


def _without_shared(noun: Noun, uses: Mapping[str, int]) -> Noun:
    kept = [
        number
        for number, (one, many) in enumerate(zip(noun.singular, noun.plural, strict=True))
        if number == 0 or (uses[one] == 1 and uses[many] == 1)
    ]
    return Noun(
        tuple(noun.singular[number] for number in kept),
        tuple(noun.plural[number] for number in kept),
        tuple(form for number, form in enumerate(noun.cover) if number == 0 or uses[form] == 1),
    )


def load_lexicon(path: str | Path | None = None) -> Lexicon:
    """Return the shipped lexicon, with the sections of a file of one's own in their place.

    Args:
        path: JSON object with some of the sections of the shipped file; None = as shipped.

    Raises:
        UserError: the file cannot be read, or a section, a key, a slot of a template or a word is not as it must be,
            or one phrase has two meanings.
    """
    words = _read(_SHIPPED)
    if path is not None:
        own = _read(Path(path))
        unknown = sorted(set(own) - set(words))
        if unknown:
            raise UserError(f"lexicon '{path}' has the unknown section '{unknown[0]}'; known: {', '.join(words)}")
        nouns = own.get("nouns", {})
        words |= own | {"nouns": words["nouns"] | nouns if isinstance(nouns, dict) else nouns}
    _check(words, str(path or _SHIPPED))
    digest = hashlib.sha256(json.dumps(words, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return Lexicon(words, digest)


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path, "lexicon")
    try:
        words = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"lexicon '{path}' is not valid JSON in UTF-8: {error}") from error
    if not isinstance(words, dict):
        raise UserError(f"lexicon '{path}' is not a JSON object")
    return words


def _check(words: Mapping[str, Any], source: str) -> None:
    for section, keys in _KEYS.items():
        content = words[section]
        if not isinstance(content, dict) or set(content) != set(keys):
            raise UserError(f"lexicon '{source}': section '{section}' needs exactly the keys: {', '.join(keys)}")
        for key, phrases in content.items():
            _check_phrases(phrases, f"{section}.{key}", source)
            for phrase in phrases:
                slot = key if section == "templates" else section
                _check_slots(phrase, _SLOTS.get(slot, ()), _OPTIONAL_SLOTS.get(slot, set()), source)
    for section in _LISTS:
        _check_phrases(words[section], section, source)
    for phrase in words["percents"]:
        _check_slots(phrase, _SLOTS["percents"], set(), source)
    _check_ends(words, source)
    _check_nouns(words["nouns"], source)
    _check_meanings(words, source)


def _check_phrases(phrases: Any, name: str, source: str) -> None:
    if not isinstance(phrases, list) or not phrases:
        raise UserError(f"lexicon '{source}': '{name}' must be a list with at least one text")
    for phrase in phrases:
        if not isinstance(phrase, str) or not phrase.strip():
            raise UserError(f"lexicon '{source}': '{name}' holds {phrase!r}, which is no text")


def _check_slots(phrase: str, needed: tuple[str, ...], optional: set[str], source: str) -> None:
    found = re.findall(r"\{(\w*)\}", phrase)
    if "{" in re.sub(r"\{\w*\}", "", phrase) or set(found) - optional != set(needed) or len(found) != len(set(found)):
        slots = ", ".join(f"{{{slot}}}" for slot in needed) or "none"
        raise UserError(f"lexicon '{source}': '{phrase}' must have each of these slots once: {slots}")


def _check_ends(words: Mapping[str, Any], source: str) -> None:
    """Levels and relations are read back by the words before and between their nouns."""
    for phrase in (text for key in ("levels", "plural_levels") for texts in words[key].values() for text in texts):
        if not phrase.endswith(" {noun}"):
            raise UserError(f"lexicon '{source}': the level '{phrase}' must end with the slot {{noun}}")
    for phrase in (text for texts in words["relations"].values() for text in texts):
        if not (phrase.startswith("{a} ") and phrase.endswith(" {b}")):
            raise UserError(f"lexicon '{source}': the relation '{phrase}' must start with {{a}} and end with {{b}}")


def _check_nouns(nouns: Any, source: str) -> None:
    if not isinstance(nouns, dict):
        raise UserError(f"lexicon '{source}': section 'nouns' must be an object")
    for name, forms in nouns.items():
        if not isinstance(forms, dict) or not forms or set(forms) - set(_NOUN_FORMS):
            raise UserError(f"lexicon '{source}': noun '{name}' needs some of: {', '.join(_NOUN_FORMS)}")
        for key, phrases in forms.items():
            _check_phrases(phrases, f"nouns.{name}.{key}", source)
        if len(forms.get("singular", ())) != len(forms.get("plural", ())):
            raise UserError(f"lexicon '{source}': noun '{name}' needs as many plurals as singulars")


def _check_meanings(words: Mapping[str, Any], source: str) -> None:
    seen: dict[str, str] = {}
    for section in _MEANINGS:
        for key, phrases in words[section].items():
            for phrase in phrases:
                meaning = f"{section}.{key}"
                if seen.setdefault(phrase.casefold(), meaning) != meaning:
                    raise UserError(
                        f"lexicon '{source}': '{phrase}' stands for both '{seen[phrase.casefold()]}' and '{meaning}'"
                    )
