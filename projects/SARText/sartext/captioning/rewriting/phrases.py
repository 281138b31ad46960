"""Phrases that live or die: what is left of a piece of a sentence when its banned words are gone.

A phrase whose head goes takes its modifiers with it; one without words is dead. Rules of what was done travel upward
with the phrase, so that a reading that was tried and given up leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mmovseg.projects.sartext.captioning.rewriting.lexicon import Lexicon

Words = tuple[str, ...]
Kind = Literal["whole", "noun", "rest"]


@dataclass(frozen=True)
class Phrase:
    """What is left of a phrase.

    Attributes:
        words: in order; none = the phrase is dead.
        rules: names of what was done to it.
        plural: number of its head, None = unknown or not to be touched.
        first_plural: number of the first of several heads: "there is a house and some trees".
        determiner: how many of the first words are its determiner.
        refers_back: it holds a word that stands for something named before.
        kind: of a clause: with its verb, a noun alone, or a verb or phrase that belongs to the noun before.
        lost_first: the first of its list is gone.
        determiner_of_dead: what stood before a noun that is gone, for the next in its list.
    """

    words: Words = ()
    rules: frozenset[str] = frozenset()
    plural: bool | None = None
    determiner: int = 0
    refers_back: bool = False
    first_plural: bool | None = None
    determiner_of_dead: Words = ()
    kind: Kind = "whole"
    lost_first: bool = False

    @property
    def alive(self) -> bool:
        return bool(self.words)

    def dead(self, *rules: str) -> Phrase:
        """Return the phrase without words."""
        return Phrase((), self.rules | frozenset(rules), None, 0, self.refers_back)


def join(phrases: Iterable[Phrase], *, before: Words = (), rules: Iterable[str] = ()) -> Phrase:
    """Return the phrases one behind the other, after the words `before`; alive if any word is left."""
    parts = list(phrases)
    words = before + tuple(word for part in parts for word in part.words)
    done = frozenset(rules).union(*(part.rules for part in parts))
    return Phrase(words, done, refers_back=any(part.refers_back for part in parts if part.alive))


def join_list(members: Sequence[Phrase], connectors: Sequence[Words]) -> Phrase:
    """Return what is left of "a, b and c".

    Args:
        members: at least one.
        connectors: what stands before each member but the first.
    """
    kept = [index for index, member in enumerate(members) if member.alive and _is_new(members, index)]
    rules = frozenset[str]().union(*(member.rules for member in members))
    if len(kept) < len(members):
        rules |= {"list member"}
    if not kept:
        return Phrase((), rules)
    words: Words = ()
    for number, index in enumerate(kept):
        if number:
            link = connectors[index - 1]
            is_last = number == len(kept) - 1
            gap = index - kept[number - 1] > 1 or index < len(members) - 1
            words += ("and",) if is_last and gap and link == (",",) else link
        words += members[index].words
    before = members[0]
    if before.alive and kept[0] and not members[kept[0]].determiner:
        words = before.words[: before.determiner] + words
    first = members[kept[0]]
    # of a whole list the verb is right already; with members lost it is that of what is left
    plural = first.plural if len(kept) == 1 else True if len(kept) < len(members) else None
    back = any(members[index].refers_back for index in kept)
    return Phrase(words, rules, plural, first.determiner, back, first.plural, lost_first=kept[0] > 0)


_UNCOUNTED = frozenset({("some",), ("many",), ("several",), ("lots of",), ("a lot of",), ("plenty of",), ("the",)})


def _is_new(members: Sequence[Phrase], index: int) -> bool:
    """Say whether a member that lost words says more than the others: "green trees and dead trees" are "trees"."""
    words = _bare(members[index])
    determiner = members[index].words[: members[index].determiner]
    if not members[index].rules or (determiner and determiner not in _UNCOUNTED):
        return True  # "six white tanks and six silver tanks" are twelve
    for other, member in enumerate(members):
        theirs = _bare(member)
        if other != index and theirs[: len(words)] == words and (len(theirs) > len(words) or other < index):
            return False
    return True


def _bare(phrase: Phrase) -> Words:
    return phrase.words[phrase.determiner :]


_IRREGULAR = {"is": "are", "was": "were", "has": "have", "does": "do", "goes": "go"}
_IRREGULAR_BASE = {base: third for third, base in _IRREGULAR.items()}


def plural_of(noun: str) -> str:
    """Return the plural of a regular noun."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else noun + "s"


def third_person(base: str) -> str:
    """Return the third person of a verb: "cross" -> "crosses"."""
    if base in _IRREGULAR_BASE:
        return _IRREGULAR_BASE[base]
    if base.endswith(("s", "x", "ch", "sh", "o")):
        return base + "es"
    return base[:-1] + "ies" if base.endswith("y") and base[-2:-1] not in "aeiou" else base + "s"


def agree(verb: str, plural: bool | None, lexicon: Lexicon) -> str:
    """Return a finite verb in the number of its subject; forms that are not known stay as they are."""
    if plural is None:
        return verb
    if plural:
        if verb in _IRREGULAR:
            return _IRREGULAR[verb]
        known = lexicon.words("noun or verb, third person") | lexicon.words("verb")
        if verb in known and verb.endswith("s"):
            bases = lexicon.words("noun or verb, base") | lexicon.words("verb")
            return next((base for base in sorted(bases) if third_person(base) == verb), verb)
        return verb
    if verb in _IRREGULAR_BASE:
        return _IRREGULAR_BASE[verb]
    bases = lexicon.words("noun or verb, base") | lexicon.words("verb")
    thirds = lexicon.words("noun or verb, third person") | lexicon.words("verb")
    return third_person(verb) if verb in bases and third_person(verb) in thirds else verb
