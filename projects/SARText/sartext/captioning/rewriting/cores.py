"""The inside of a noun phrase: determiner, modifiers and the noun itself."""

from __future__ import annotations

from collections.abc import Sequence

from mmovseg.projects.sartext.captioning.rewriting.lexicon import Lexicon
from mmovseg.projects.sartext.captioning.rewriting.phrases import Phrase, Words, plural_of
from mmovseg.projects.sartext.captioning.rewriting.tokens import Tag, Token

Found = tuple[Phrase, int]
_ADVERBS = (Tag.ADVERB, Tag.BANNED_ADVERB)
_VERBALS = (Tag.PARTICIPLE, Tag.ING)
_LINKS = (Tag.CONJUNCTION, Tag.COMMA)
_NOUNS = (Tag.NOUN, Tag.BANNED_NOUN)
_MODIFIERS = (Tag.ADJECTIVE, Tag.BANNED_MODIFIER)
_MOTION = frozenset({"go", "goes", "pass", "passes", "cross", "crosses", "run", "runs", "went", "passed"})
_ARTICLES = ("a", "an", "the")


class CoreReader:
    """The part of the reader that looks at single words and at noun phrases without what hangs on them."""

    def __init__(self, tokens: Sequence[Token], lexicon: Lexicon) -> None:
        self.tokens = list(tokens)
        self.lexicon = lexicon
        self.in_relative = 0

    def tag(self, at: int) -> Tag | None:
        """Return the class of the word at a position, None beyond the ends."""
        return self.tokens[at].tag if 0 <= at < len(self.tokens) else None

    def text(self, at: int) -> str:
        """Return the word at a position, "" beyond the ends."""
        return self.tokens[at].text if 0 <= at < len(self.tokens) else ""

    def category(self, at: int) -> str:
        """Return the category that bans the word."""
        return self.tokens[at].category or "filler"

    def reaches_noun(self, at: int) -> bool:
        """Say whether modifiers from here lead to a noun: "green and curved" does in "green and curved roads" only."""
        while self.tag(at) in (*_MODIFIERS, *_ADVERBS, *_VERBALS, *_LINKS):
            if self.tag(at) in _LINKS and self.tag(at + 1) in _LINKS:
                return False
            if self.tag(at) in _VERBALS and self.tag(at + 1) in (Tag.PREPOSITION, Tag.DETERMINER, None):
                return False
            at += 1
        return self.tag(at) in _NOUNS and self.tag(at - 1) not in _LINKS

    def _core(self, at: int) -> tuple[Phrase, int, str] | None:
        """Read determiner, modifiers and noun; the last item is the noun, or "determiner" where there is none."""
        start, rules = at, set[str]()
        determiner: Words = ()
        number: list[bool] = []
        while self._in_determiner(at):
            if self.tag(at) is Tag.BANNED_ADVERB:
                rules.add(self.category(at))
            else:
                determiner += (self.text(at),)
                if self.tokens[at].plural is not None and self.tag(at) is Tag.DETERMINER:
                    number.append(bool(self.tokens[at].plural))
            at += 1
        back = any(word in self.lexicon.words("referring back") for word in determiner) and determiner[0] not in (
            "this",
            "these",
            "that",
        )
        modifiers, at, lost, more = self._modifiers(at)
        rules |= more
        nouns_at = at
        while self.tag(at) in _NOUNS:
            at += 1
        if at == nouns_at:
            return self._headless(start, at, determiner, modifiers, lost, rules, back)
        if self.text(at - 1) == "one" and lost and not modifiers and determiner in (("a",), ("an",)):
            return Phrase(("another",), frozenset(rules | {"determiner"}), False, 1, True), at, "one"
        nouns, kept, more = self._nouns(nouns_at, at, modifiers, lost)
        rules |= more
        head = self.text(at - 1)
        if not kept:
            return Phrase((), frozenset(rules), determiner_of_dead=determiner), at, head
        plural = self._number(number, bool(self.tokens[at - 1].plural), determiner)
        fixed = self.lexicon.words("nouns without plural") | self.lexicon.words("noun or verb, base")
        is_odd = any(self.tokens[index].plural for index in range(nouns_at, at - 1))  # "ones next": no compound
        if plural and not self.tokens[at - 1].plural and head not in fixed and not is_odd:
            nouns = (*nouns[:-1], plural_of(nouns[-1]))
            rules.add("agreement")
        if determiner[-1:] == ("another",) and self.tokens[at - 1].plural:
            determiner = (*determiner[:-1], "other")
            rules.add("agreement")
        phrase = Phrase(determiner + modifiers + nouns, frozenset(rules), plural, len(determiner), back)
        return phrase, at, head

    def _in_determiner(self, at: int) -> bool:
        if self.tag(at) is Tag.DETERMINER:
            return True
        return self.tag(at) in _ADVERBS and self.tag(at + 1) is Tag.DETERMINER

    def _number(self, said: Sequence[bool], head: bool, determiner: Words) -> bool | None:
        """Return the number of a noun phrase: what its noun says, unless its determiner says something else."""
        if not said or said[-1] == head:
            return head
        return True if self._is_many(determiner) else head if determiner[-1:] != ("some",) and said[-1] else None

    def _is_many(self, determiner: Words) -> bool:
        """Say whether a determiner wants a plural: "two", "many", not "some" (water)."""
        return any(
            word in self.lexicon.words("plural") or word.isdigit() for word in determiner if word not in ("some", "1")
        )

    def _modifiers(self, at: int) -> tuple[Words, int, bool, set[str]]:
        """Read what stands before a noun; returns words, end, whether the last modifier was lost, and rules."""
        groups: list[tuple[Words, Words]] = []
        rules: set[str] = set()
        lost = False
        link: Words = ()
        while True:
            end, words = at, ()  # type: int, Words
            while self.tag(end) in _ADVERBS:
                words += (self.text(end),) if self.tag(end) is Tag.ADVERB else ()
                rules |= {self.category(end)} if self.tag(end) is Tag.BANNED_ADVERB else set()
                end += 1
            tag = self.tag(end)
            if tag in _VERBALS and not self.reaches_noun(end):
                break
            if tag is Tag.BANNED_MODIFIER:
                rules.add(self.category(end))
                lost = True
            elif tag in (Tag.ADJECTIVE, *_VERBALS):
                if lost and self.text(end) in self.lexicon.words("modifiers that need their colour"):
                    rules.add("colour")
                else:
                    groups.append((link, (*words, self.text(end))))
                    lost = False
            else:
                break
            at = end + 1
            link = ()
            if self.tag(at) in _LINKS and self.reaches_noun(at + 1) and self._modifier_at(at + 1):
                link = (self.text(at),)
                at += 1
                if self.tag(at) in _LINKS:
                    link += (self.text(at),)
                    at += 1
        kept: Words = ()
        for index, (before, words) in enumerate(groups):
            kept += (before if index else ()) + words
        return kept, at, lost, rules

    def _modifier_at(self, at: int) -> bool:
        while self.tag(at) in (*_ADVERBS, *_LINKS):
            at += 1
        return self.tag(at) in (*_MODIFIERS, *_VERBALS)

    def _headless(
        self, start: int, at: int, determiner: Words, modifiers: Words, lost: bool, rules: set[str], back: bool
    ) -> tuple[Phrase, int, str] | None:
        """Return "some", "the left" or a dead "green"; None where nothing was read."""
        if at == start or (not modifiers and not lost and determiner[-1:] in (("a",), ("an",), ("the",))):
            return None
        if modifiers and not lost and not determiner:
            return None
        words = determiner + modifiers
        if lost and not modifiers:
            return Phrase((), frozenset(rules), determiner_of_dead=determiner), at, "determiner"
        return Phrase(words, frozenset(rules), None, len(determiner), back), at, "determiner"

    def _nouns(self, start: int, end: int, modifiers: Words, lost: bool) -> tuple[Words, bool, set[str]]:
        """Return the words of a compound noun, whether its head stays, and rules."""
        words: Words = ()
        rules: set[str] = set()
        for at in range(start, end - 1):
            if self.tag(at) is Tag.BANNED_NOUN:
                rules.add(self.category(at))
                lost = True
                if self.category(at) in ("lighting", "weather"):  # a "shadow area" is no area
                    return (), False, rules
            elif lost and not words and self.text(at) in self.lexicon.words("modifiers that need their colour"):
                rules.add("colour")
            else:
                words += (self.text(at),)
        head = end - 1
        if self.tag(head) is Tag.BANNED_NOUN:
            return (), False, rules | {self.category(head)}
        needs = self.text(head) in self.lexicon.words("nouns that need their adjective")
        if needs and lost and not words and not modifiers:
            return (), False, rules | {"colour"}
        if self.text(head).startswith("SAR image"):
            rules.add("medium")
        return (*words, self.text(head)), True, rules
