"""Noun phrases and all that hangs on them: prepositions, participles, adjectives, relative clauses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mmovseg.projects.sartext.captioning.rewriting.cores import CoreReader
from mmovseg.projects.sartext.captioning.rewriting.phrases import Phrase, Words, join, join_list
from mmovseg.projects.sartext.captioning.rewriting.tokens import FINITE, Tag

Found = tuple[Phrase, int]
_ADVERBS = (Tag.ADVERB, Tag.BANNED_ADVERB)
_VERBALS = (Tag.PARTICIPLE, Tag.ING)
_LINKS = (Tag.CONJUNCTION, Tag.COMMA)
_NOUNS = (Tag.NOUN, Tag.BANNED_NOUN)
_MODIFIERS = (Tag.ADJECTIVE, Tag.BANNED_MODIFIER)
_MOTION = frozenset({"go", "goes", "pass", "passes", "cross", "crosses", "run", "runs", "went", "passed"})
_ARTICLES = ("a", "an", "the")


class NounReader(CoreReader, ABC):
    """The part of the reader below the verb."""

    @abstractmethod
    def verb_phrase(self, at: int, plural: bool | None) -> Found | None:
        """Read a verb; the sentence reader does."""

    @abstractmethod
    def verb_phrases(self, at: int, plural: bool | None) -> Found | None:
        """Read verbs that share a subject; the sentence reader does."""

    @abstractmethod
    def clause(self, at: int, *, continues: bool = False) -> Found | None:
        """Read a clause; the sentence reader does."""

    def noun_list(self, at: int, *, subject: bool, place: bool = False) -> Found | None:
        """Read "a, b and c"; a member before a verb belongs to the next clause unless this is the subject.

        With `place`, the list hangs on a preposition: what follows a lost member still belongs to it.
        """
        found = self.noun(at, subject=subject)
        if found is None:
            return None
        members, links, at = [found[0]], [], found[1]
        starts = [at]
        while self.tag(at) in _LINKS:
            end, link = at, ()  # type: int, Words
            while self.tag(end) in _LINKS:
                link += (self.text(end),)
                end += 1
            found = self.noun(end, subject=subject)
            if (
                found is None
                or self._opens_clause(found[1], members, subject=subject, place=place)
                or self.text(end) in ("it", "they")
            ):
                break
            if subject and link == (",",) and not self._goes_on(found[1]):
                break
            if subject and "," in link and not found[0].alive and self._verb_follows(found[1]):
                return found  # ", and many people are ...": what the verb says is about the lost one
            members.append(self._inherit(members[-1], found[0], end))
            links.append(link)
            at = found[1]
            starts.append(at)
        return join_list(members, links), at

    def _opens_clause(self, at: int, members: Sequence[Phrase], *, subject: bool, place: bool) -> bool:
        """Say whether a member that ends here is the subject of a clause of its own: "houses and a road goes ..."."""
        if not self._verb_follows(at):
            return False
        if subject:
            return self.text(at) in _MOTION and len(members[-1].words) > 3
        return not place or members[-1].alive or self.tag(at) is not Tag.BE

    def _goes_on(self, at: int) -> bool:
        """Say whether a list that was read up to here has another member or a verb; else its comma is another's."""
        return self.tag(at) in _LINKS or self._verb_follows(at) or self.tag(at) is None

    def _verb_follows(self, at: int) -> bool:
        while self.tag(at) in _ADVERBS:
            at += 1
        return self.tag(at) in FINITE

    def _inherit(self, before: Phrase, member: Phrase, at: int) -> Phrase:
        """Return a member with the determiner of a dead one before it: "some people and cars" -> "some cars"."""
        if not before.alive and member.words[:1] == ("another",) and self.text(at) in ("a", "an"):
            return member.dead("list member")  # "with red roofs and a white one": another what?
        if before.alive or not member.alive or self.tag(at) is Tag.DETERMINER or not before.determiner_of_dead:
            return member
        words = before.determiner_of_dead
        if member.plural and words[-1] in ("a", "an", "one", "another", "this", "that", "each", "every"):
            return member
        if not member.plural and words[-1] not in (*_ARTICLES, "this", "that", "some", "no"):
            return member
        return Phrase(
            words + member.words, member.rules | {"determiner"}, member.plural, len(words), member.refers_back
        )

    def noun(self, at: int, *, subject: bool) -> Found | None:
        """Read one noun phrase with what hangs on it."""
        if self.tag(at) is Tag.PRONOUN:
            text = self.text(at)
            plural = {"it": False, "they": True, "we": True}.get(text)
            head, end = Phrase((text,), plural=plural, refers_back=text in self.lexicon.words("referring back")), at + 1
            needs = text
        else:
            core = self._core(at)
            if core is None:
                return None
            head, end, needs = core
        core_end = end
        is_hollow = not head.alive and needs in self.lexicon.words("nouns that need their adjective")
        # "houses with red roofs arranged in lines": what follows is about the houses
        parts, end, lost_of = self._hangers(end, only_places=is_hollow)
        is_needy = needs in self.lexicon.words("nouns that need their complement") or needs == "determiner"
        if not head.alive or (lost_of and is_needy):
            rules = frozenset[str]().union(head.rules, *(part.rules for part in parts))
            determiner = head.determiner_of_dead or head.words[: head.determiner]
            return Phrase((), rules | ({"phrase"} if parts else set()), determiner_of_dead=determiner), end
        of_follows = self.text(core_end) == "of" and needs in self.lexicon.words("nouns that need their complement")
        plural = None if of_follows else head.plural  # "a row of trees is", "are": as it was written
        whole = join([head, *parts])
        lost = {"phrase"} if any(not part.alive for part in parts) else set()
        return Phrase(whole.words, whole.rules | lost, plural, head.determiner, whole.refers_back, head.plural), end

    def _hangers(self, at: int, *, only_places: bool) -> tuple[list[Phrase], int, bool]:
        """Read all that hangs on a noun; the last item says whether an "of ..." was lost."""
        parts: list[Phrase] = []
        lost_of = False
        while True:
            after = at
            while self.tag(after) in _ADVERBS:
                after += 1
            found: Found | None = None
            tag = self.tag(at)
            if (self.tag(after) in FINITE and after > at) or (only_places and self.tag(after) in _VERBALS):
                break
            if tag in (Tag.PREPOSITION, Tag.BANNED_PREPOSITION):
                if self.tag(at + 1) is Tag.RELATIVE:
                    found = self.relative(at)
                else:
                    found = self.preposition_phrase(at)
                lost_of = lost_of or (self.text(at) == "of" and not parts and found is not None and not found[0].alive)
            elif self.tag(after) in _VERBALS:
                found = self.participial(at)
            elif tag in _ADVERBS:
                found = self.adverbs(at)
            elif tag is Tag.RELATIVE:
                found = self.relative(at)
            elif tag is Tag.COMMA and self._aside(at + 1):
                found = self._after_comma(at)
            elif tag in _MODIFIERS and not self.reaches_noun(at):
                found = self.adjectives(at)
            elif tag is Tag.TO:
                found = self.infinitive(at)
            if found is None:
                break
            parts.append(found[0])
            at = found[1]
        return parts, at, lost_of

    def _aside(self, at: int) -> bool:
        if self.tag(at) is Tag.RELATIVE or (self.tag(at) is Tag.PREPOSITION and self.tag(at + 1) is Tag.RELATIVE):
            return True
        return (
            self.tag(at) in _VERBALS and self.tag(at + 1) in (Tag.PREPOSITION, Tag.ADVERB) and not self.reaches_noun(at)
        )

    def _after_comma(self, at: int) -> Found | None:
        found = self.relative(at + 1) if self.tag(at + 1) not in _VERBALS else self.participial(at + 1)
        if found is None or not found[0].alive:
            return found
        return join([found[0]], before=(",",)), found[1]

    def preposition_phrase(self, at: int) -> Found | None:
        """Read a preposition with its noun, or alone ("with some cars beside"); dead if the noun is."""
        if self.tag(at) is Tag.BANNED_PREPOSITION:
            found = self.noun_list(at + 1, subject=False)
            return Phrase((), frozenset({self.category(at), "phrase"})), (at + 1 if found is None else found[1])
        members: list[Phrase] = []
        links: list[Words] = []
        while True:
            found = self._one_preposition(at)
            if found is None:
                break
            members.append(found[0])
            at = found[1]
            end, link = at, ()  # type: int, Words
            while self.tag(end) in _LINKS:
                link += (self.text(end),)
                end += 1
            if not link or link == (",",) or self.tag(end) is not Tag.PREPOSITION or self.tag(end + 1) is Tag.RELATIVE:
                break
            if self._verb_after_phrase(end):
                break
            links.append(link)
            at = end
        return (join_list(members, links[: len(members) - 1]), at) if members else None

    def _verb_after_phrase(self, at: int) -> bool:
        """Say whether the place that starts here opens a clause of its own: "and on the other side are trees"."""
        found = self._one_preposition(at)
        if found is None:
            return False
        end = found[1] + (self.tag(found[1]) is Tag.COMMA)
        return self.tag(end) in (*FINITE, Tag.THERE)

    def _one_preposition(self, at: int) -> Found | None:
        words: Words = ()
        rules: set[str] = set()
        while self.tag(at) is Tag.PREPOSITION or (words and self.tag(at) is Tag.BANNED_ADVERB):
            if self.tag(at) is Tag.PREPOSITION:
                words += (self.text(at),)
            at += 1
        if not words or self.tag(at) is Tag.RELATIVE:
            return None
        is_gerund = self.tag(at) is Tag.ING and not self.reaches_noun(at)
        found = self.participial(at) if is_gerund else self.noun_list(at, subject=False, place=True)
        if found is None:
            return Phrase(words), at
        if not found[0].alive or (words == ("of",) and found[0].lost_first):
            return Phrase((), found[0].rules | {"phrase"}), found[1]
        return join([found[0]], before=words, rules=rules), found[1]

    def participial(self, at: int) -> Found | None:
        """Read "(neatly) parked in the lot"; dead if what the verb needs is."""
        members: list[Phrase] = []
        links: list[Words] = []
        while True:
            words: Words = ()
            rules: set[str] = set()
            while self.tag(at) in _ADVERBS:
                words += (self.text(at),) if self.tag(at) is Tag.ADVERB else ()
                rules |= {self.category(at)} if self.tag(at) is Tag.BANNED_ADVERB else set()
                at += 1
            if self.tag(at) not in _VERBALS:
                return None
            verb = self.text(at)
            parts, at = self.complements(at + 1)
            members.append(self._participle_with((*words, verb), verb, parts, rules))
            end = at
            while self.tag(end) in (Tag.CONJUNCTION, *_ADVERBS):
                end += 1
            if self.tag(at) is not Tag.CONJUNCTION or self.tag(end) not in _VERBALS or self.reaches_noun(end):
                return join_list(members, links), at
            links.append((self.text(at),))
            at += 1

    def _participle_with(self, words: Words, verb: str, parts: Sequence[tuple[str, Phrase]], rules: set[str]) -> Phrase:
        needed = next((part for kind, part in parts if kind != "adverb"), None)
        whole = join([part for _, part in parts], before=words, rules=rules)
        if needed is not None and not needed.alive:
            if verb not in self.lexicon.words("verbs complete without complement"):
                return whole.dead("complement")
        return whole

    def complements(self, at: int) -> tuple[list[tuple[str, Phrase]], int]:
        """Read what follows a verb: nouns, places, participles, adverbs; pairs of kind and phrase."""
        parts: list[tuple[str, Phrase]] = []
        while True:
            tag, found, kind = self.tag(at), None, "place"
            if tag in _ADVERBS:
                after = at
                while self.tag(after) in _ADVERBS:
                    after += 1
                found, kind = self.adverbs(at), "adverb"
                if self.tag(after) in FINITE:
                    found = None
            elif tag in (Tag.PREPOSITION, Tag.BANNED_PREPOSITION):
                found = self.relative(at) if self.tag(at + 1) is Tag.RELATIVE else self.preposition_phrase(at)
            elif tag in _VERBALS and not self.reaches_noun(at):
                found = self.participial(at)
            elif tag in _MODIFIERS and not self.reaches_noun(at):
                found = self.adjectives(at)
            elif tag is Tag.TO:
                found = self.infinitive(at)
            elif tag in (Tag.DETERMINER, Tag.PRONOUN, *_NOUNS, *_MODIFIERS, *_VERBALS):
                verb = self.text(at - 1)
                found, kind = self.noun_list(at, subject=False), "noun"
                # "throwing up foam and some plants": who knows whether the plants are thrown
                if (
                    found is not None
                    and found[0].lost_first
                    and verb not in self.lexicon.words("verbs with a list of objects")
                ):
                    found = found[0].dead("complement"), found[1]
            if found is None:
                return parts, at
            parts.append((kind, found[0]))
            at = found[1]

    def adverbs(self, at: int) -> Found | None:
        """Read adverbs; dead if all of them are banned."""
        words: Words = ()
        rules: set[str] = set()
        start = at
        while self.tag(at) in _ADVERBS:
            words += (self.text(at),) if self.tag(at) is Tag.ADVERB else ()
            rules |= {self.category(at)} if self.tag(at) is Tag.BANNED_ADVERB else set()
            at += 1
        return (Phrase(words, frozenset(rules)), at) if at > start else None

    def adjectives(self, at: int) -> Found | None:
        """Read adjectives that stand alone, with the places behind them; dead if all of them are banned."""
        members: list[Phrase] = []
        links: list[Words] = []
        while True:
            lead = self.adverbs(at)
            end = at if lead is None else lead[1]
            if self.tag(end) not in _MODIFIERS:
                break
            word = (
                Phrase((self.text(end),))
                if self.tag(end) is Tag.ADJECTIVE
                else Phrase((), frozenset({self.category(end)}))
            )
            members.append(join([lead[0], word]) if lead is not None and word.alive else word)
            at = end + 1
            if self.tag(at) in _MODIFIERS:  # "light green": no link between them
                links.append(())
            elif (
                self.tag(at) in _LINKS
                and self.tag(at + 1) in (*_MODIFIERS, *_ADVERBS)
                and not self.reaches_noun(at + 1)
            ):
                links.append((self.text(at),))
                at += 1
            else:
                break
        if not members:
            return None
        whole = join_list(members, links[: len(members) - 1])
        while self.tag(at) is Tag.PREPOSITION and self.tag(at + 1) is not Tag.RELATIVE:
            found = self.preposition_phrase(at)
            if found is None:
                break
            whole = join([whole, found[0]]) if whole.alive else whole.dead(*found[0].rules)
            at = found[1]
        return whole, at

    def infinitive(self, at: int) -> Found | None:
        """Read "to form a square"; dead if the verb is."""
        found = self.verb_phrase(at + 1, None)
        if found is None:
            return None
        return (join([found[0]], before=("to",)) if found[0].alive else found[0]), found[1]

    def relative(self, at: int) -> Found | None:
        """Read "which has ..." or "in which ... is"; dead if its clause is."""
        words: Words = ()
        while self.tag(at) in (Tag.PREPOSITION, Tag.RELATIVE):
            words += (self.text(at),)
            at += 1
        if self.tag(at) is Tag.BANNED_PREPOSITION:  # "which looks like ..."
            return self.preposition_phrase(at)
        self.in_relative += 1
        found = self.verb_phrases(at, None) if self._verb_follows(at) else self.clause(at)
        self.in_relative -= 1
        if found is None:
            return None
        return (join([found[0]], before=words) if found[0].alive else found[0].dead("phrase")), found[1]
