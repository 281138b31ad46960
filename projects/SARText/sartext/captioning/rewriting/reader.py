"""Read a tagged sentence top-down and keep what a SAR image can show.

The grammar is that of plain descriptions: clauses with a subject and a verb, "there are ...", fragments; noun phrases
with what hangs on them to their right. Everything hangs on the nearest noun, so a noun that goes takes more rather than
less with it, and what is left is a sentence. A sentence that does not fit is not read at all (`read_sentence` gives
None).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmovseg.projects.sartext.captioning.rewriting.lexicon import Lexicon
from mmovseg.projects.sartext.captioning.rewriting.nouns import NounReader
from mmovseg.projects.sartext.captioning.rewriting.phrases import Phrase, Words, agree, join, join_list
from mmovseg.projects.sartext.captioning.rewriting.tokens import FINITE, Tag, Token

Found = tuple[Phrase, int]
_ADVERBS = (Tag.ADVERB, Tag.BANNED_ADVERB)
_VERBALS = (Tag.PARTICIPLE, Tag.ING)
_LINKS = (Tag.CONJUNCTION, Tag.COMMA)
_BEFORE_SUBJECT = frozenset(
    {"lies", "lie", "stands", "stand", "sits", "sit", "runs", "run", "comes", "come", "stretches"}
)
_SEES = frozenset({"see", "find", "saw", "observe", "spot"})


class SentenceReader(NounReader):
    """Reads one sentence; every method takes a position and returns what it read and where that ends, or None."""

    def sentence(self) -> Phrase | None:
        """Return what is left of the sentence, dead if nothing is; None if it cannot be read."""
        clauses: list[tuple[Words, Phrase]] = []
        at = 0
        while at < len(self.tokens):
            link: Words = ()
            while self.tag(at) in (*_LINKS, Tag.SUBORDINATOR):
                link += (self.tokens[at].text,)
                at += 1
            if at >= len(self.tokens):
                break
            found = self.clause(at, continues=bool(clauses))
            if found is None or found[1] <= at:
                return None
            if found[1] < len(self.tokens) and self.tag(found[1]) not in (*_LINKS, Tag.SUBORDINATOR):
                return None
            clauses.append((link, found[0]))
            at = found[1]
        return _join_clauses(clauses)

    def clause(self, at: int, *, continues: bool = False) -> Found | None:
        """Read leading phrases and a clause, or a fragment."""
        start = at
        lead, at = self._leads(at)
        if self.tag(at) in FINITE:
            return self._verb_first(at, lead, continues=continues)
        if self.tag(at) is Tag.THERE:
            return self._there(at, lead)
        if self.tag(at) is Tag.PRONOUN and self.text(at) in ("we", "you", "i", "one"):
            return self._we_see(at, lead)
        subject = self.noun_list(at, subject=True)
        if subject is None:
            return (replace(lead, kind="rest"), at - (self.tag(at - 1) is Tag.COMMA)) if at > start else None
        phrase, at = subject
        at += self.tag(at) is Tag.COMMA and self._verb_ahead(at + 1)
        if self._verb_ahead(at):
            found = self.verb_phrases(at, self._number_of_subject(phrase, at))
            if found is None:
                return None
            verb, at = found
            if not phrase.alive or not verb.alive:
                return join([lead, phrase, verb]).dead("clause"), at
            phrase = join([phrase, verb])
            return join([lead, phrase]), at
        if not phrase.alive:
            return join([lead, phrase]).dead("clause"), at
        return replace(join([lead, phrase]), kind="noun"), at

    def _number_of_subject(self, subject: Phrase, at: int) -> bool | None:
        """Return the number that a verb takes; None leaves it: "a park with two trails go" means the trails."""
        is_plain = self.tag(at) is Tag.VERB and not self.text(at).endswith("s")
        return None if is_plain and self.tokens[at - 1].plural else subject.plural

    def _leads(self, at: int) -> Found:
        """Read the phrases before the subject, each with the comma that follows it."""
        leads: list[Phrase] = []
        while True:
            found: Found | None = None
            tag = self.tag(at)
            if tag in (Tag.PREPOSITION, Tag.BANNED_PREPOSITION):
                found = self.preposition_phrase(at)
            elif self.text(at) in ("here", "there") and tag is Tag.ADVERB:
                found = Phrase((self.text(at),)), at + 1
            elif tag in _ADVERBS and not self._verb_ahead(at) and self.tag(at + 1) is not Tag.DETERMINER:
                found = self.adverbs(at)
                if self.reaches_noun(at):
                    found = None
                elif found is not None and self.tag(found[1]) in _VERBALS:
                    found = self.participial(at)
            elif tag in _VERBALS and self.tag(at + 1) in (Tag.PREPOSITION, Tag.DETERMINER, Tag.ADVERB):
                found = self.participial(at)
            if found is None:
                return join(leads), at
            lead, at = found
            if self.tag(at) is Tag.COMMA:
                lead = join([lead, Phrase((",",))]) if lead.alive else lead
                at += 1
            leads.append(lead)

    def _verb_first(self, at: int, lead: Phrase, *, continues: bool) -> Found | None:
        """Read a verb before its subject ("beside it are trees"), or one that shares the subject before it."""
        verb = self.text(at)
        can_follow = self.tag(at) is Tag.BE or verb in _BEFORE_SUBJECT
        subject = self.noun_list(at + 1, subject=False) if can_follow and (lead.words or lead.rules) else None
        if subject is None:
            if not continues and not lead.alive:
                return None
            found = self.verb_phrases(at, None)
            if found is None:
                return None
            return (replace(join([lead, found[0]]), kind="rest") if found[0].alive else found[0]), found[1]
        phrase, end = subject
        if not phrase.alive or self.tag(at) is Tag.BANNED_VERB:
            return join([lead, phrase]).dead("clause"), end
        verb = agree(verb, phrase.plural, self.lexicon)
        if lead.alive:
            return join([lead, Phrase((verb,)), phrase]), end
        if self.tag(at) is Tag.BE:
            return join([lead, phrase], before=("there", verb), rules=("existential",)), end
        return join([lead, phrase]).dead("clause"), end

    def _there(self, at: int, lead: Phrase) -> Found | None:
        words: Words = (self.text(at),)
        at += 1
        rules: set[str] = set()
        while self.tag(at) in (*_ADVERBS, Tag.MODAL, Tag.BE):
            if self.tag(at) is Tag.BANNED_ADVERB:
                rules.add(self.category(at))
            else:
                words += (self.text(at),)
            at += 1
        found = self.noun_list(at, subject=False)
        if found is None:
            return None
        phrase, at = found
        if not phrase.alive:
            return join([lead, phrase]).dead("clause", *rules), at
        phrase, at = self._add_relative(phrase, at)
        words = tuple(agree(word, phrase.first_plural, self.lexicon) for word in words)
        return join([lead, Phrase(words, frozenset(rules)), phrase]), at

    def _we_see(self, at: int, lead: Phrase) -> Found | None:
        """Read "we can see X" as "there is X"; other sentences about "we" say nothing about an image."""
        while self.tag(at) in (Tag.PRONOUN, Tag.MODAL, *_ADVERBS):
            at += 1
        if self.text(at) not in _SEES:
            found = self.verb_phrases(at, None) if self._verb_ahead(at) else None
            return None if found is None else (join([lead, found[0]]).dead("clause"), found[1])
        if self.text(at + 1) == "that" and self.tag(at + 2) is not Tag.NOUN:
            return self.clause(at + 2)
        found = self.noun_list(at + 1, subject=False)
        if found is None:
            return None
        phrase, end = found
        if not phrase.alive:
            return join([lead, phrase]).dead("clause"), end
        if self._verb_ahead(end):  # "we can see a road runs ...": the object is the subject of what follows
            verb = self.verb_phrases(end, phrase.plural)
            if verb is None:
                return None
            joined = join([phrase, verb[0]], rules=("existential",))
            return (joined if verb[0].alive else joined.dead("clause")), verb[1]
        be = "are" if phrase.first_plural else "is"
        keep = lead if lead.words not in (("there",), ("here",)) else lead.dead()
        return join([keep, Phrase(("there", be)), phrase], rules=("existential",)), end

    def verb_phrases(self, at: int, plural: bool | None) -> Found | None:
        """Read verbs that share a subject; alive if one of them is."""
        found = self.verb_phrase(at, plural)
        if found is None:
            return None
        members, links, at = [found[0]], [], found[1]
        while self.tag(at) in _LINKS:
            end, link = at, ()  # type: int, Words
            while self.tag(end) in _LINKS:
                link += (self.text(end),)
                end += 1
            if not self._verb_ahead(end) or (self.in_relative and link == (",",)):
                break
            found = self.verb_phrase(end, plural)
            if found is None:
                break
            members.append(found[0])
            links.append(link)
            at = found[1]
        return join_list(members, links), at

    def verb_phrase(self, at: int, plural: bool | None) -> Found | None:
        """Read one verb with what it needs."""
        words: Words = ()
        rules: set[str] = set()
        last: Tag | None = None
        is_first = True
        while self.tag(at) in (*_ADVERBS, Tag.MODAL, Tag.BE) or (
            self.text(at) in ("has", "have", "had") and self._perfect(at)
        ):
            tag = self.tag(at)
            if tag is Tag.BANNED_ADVERB:
                rules.add(self.category(at))
            elif tag in _ADVERBS:
                words += (self.text(at),)
            else:
                words += (agree(self.text(at), plural, self.lexicon) if is_first else self.text(at),)
                is_first, last = False, tag
            at += 1
        if self.tag(at) is Tag.BANNED_VERB:
            _, end = self.complements(at + 1)
            return Phrase((), frozenset({self.category(at), "clause", *rules})), end
        if self.tag(at) is Tag.VERB:
            verb = agree(self.text(at), plural, self.lexicon) if is_first else self.text(at)
            parts, end = self.complements(at + 1)
            return self._verb_with(words + (verb,), self.text(at), parts, rules), end
        if last is None:
            return None
        found = self.predicates(at)
        if found is None:
            if last is not Tag.BE or self.tag(at - 1) not in _ADVERBS:
                return None
            rules |= {"predicate"} if self.tag(at - 1) is Tag.BANNED_ADVERB else set()
            return Phrase(() if self.tag(at - 1) is Tag.BANNED_ADVERB else words, frozenset(rules)), at
        phrase, end = found
        if not phrase.alive:
            return phrase.dead("predicate", *rules), end
        phrase, end = self._add_relative(phrase, end)
        return join([phrase], before=words, rules=rules), end

    def _add_relative(self, phrase: Phrase, at: int) -> Found:
        """Return a noun with the verb behind it as "that ...": "there is a road that runs"."""
        if self.tag(at) is not Tag.VERB or self.in_relative:
            return phrase, at
        found = self.verb_phrases(at, self.tokens[at - 1].plural)
        if found is None:
            return phrase, at
        verb, end = found
        if verb.alive:
            verb = join([verb], before=("that",), rules=("relative",))
        joined = join([phrase, verb])
        return Phrase(joined.words, joined.rules, phrase.plural, 0, joined.refers_back, phrase.first_plural), end

    def _perfect(self, at: int) -> bool:
        return self.tag(at + 1) in (Tag.BE, Tag.PARTICIPLE)

    def _verb_with(self, words: Words, verb: str, parts: Sequence[tuple[str, Phrase]], rules: set[str]) -> Phrase:
        """Return a verb with its complements; dead if what it needs first is."""
        needed = next((part for kind, part in parts if kind != "adverb"), None)
        whole = join([part for _, part in parts], before=words, rules=rules)
        is_complete = verb in self.lexicon.words("verbs complete without complement")
        if needed is not None and not needed.alive and not (is_complete and parts[0][0] != "noun"):
            return whole.dead("complement")
        return whole

    def predicates(self, at: int) -> Found | None:
        """Read what follows "is": participles, adjectives, nouns, places, several of them linked."""
        found = self._predicate(at)
        if found is None:
            return None
        members, links, at = [found[0]], [], found[1]
        while self.tag(at) in (*_LINKS, *_VERBALS):
            end, link = at, ()  # type: int, Words
            while self.tag(end) in _LINKS:
                link += (self.text(end),)
                end += 1
            after = end
            while self.tag(after) in _ADVERBS:
                after += 1
            if self.tag(after) not in (*_VERBALS, Tag.ADJECTIVE, Tag.BANNED_MODIFIER, Tag.PREPOSITION):
                break
            if self.reaches_noun(after) and self.tag(after) is not Tag.PREPOSITION and not self._is_verbal(after):
                break
            found = self._predicate(end)
            if found is None:
                break
            members.append(found[0])
            links.append(link)
            at = found[1]
        return join_list(members, links), at

    def _is_verbal(self, at: int) -> bool:
        return self.tag(at) in _VERBALS and self.tag(at + 1) in (Tag.PREPOSITION, Tag.ADVERB, None, *_LINKS)

    def _predicate(self, at: int) -> Found | None:
        after = at
        while self.tag(after) in _ADVERBS:
            after += 1
        tag = self.tag(after)
        if tag in _VERBALS and (self._is_verbal(after) or not self.reaches_noun(after)):
            return self.participial(at)
        if tag in (Tag.ADJECTIVE, Tag.BANNED_MODIFIER) and not self.reaches_noun(after):
            return self.adjectives(at)
        if tag in (Tag.PREPOSITION, Tag.BANNED_PREPOSITION):
            lead = self.adverbs(at)
            found = self.preposition_phrase(after)
            if found is None:
                return None
            return (join([lead[0], found[0]]) if lead and found[0].alive else found[0]), found[1]
        if tag is Tag.TO:
            return self.infinitive(after)
        found = self.noun_list(at, subject=False)
        return found if found is not None else self.adverbs(at)

    def _verb_ahead(self, at: int) -> bool:
        while self.tag(at) in _ADVERBS:
            at += 1
        return self.tag(at) in FINITE


_LOSSES = frozenset({"phrase", "list member", "filler"})


def _join_clauses(clauses: Sequence[tuple[Words, Phrase]]) -> Phrase:
    """Return the clauses that are left; one that points back at a lost one goes as well."""
    words: Words = ()
    rules: frozenset[str] = frozenset()
    lost = False
    before = Phrase()
    for link, clause in clauses:
        rules |= clause.rules
        if not clause.alive or (lost and clause.refers_back):
            rules |= {"clause"}
            lost = True
            continue
        is_loose = link == ("and",) and clause.kind == "rest" and before.kind == "noun" and before.rules & _LOSSES
        words += (link if words and not is_loose else ()) + clause.words
        before = clause
    return Phrase(words, rules)


def read_sentence(tokens: Sequence[Token], lexicon: Lexicon) -> Phrase | None:
    """Return what is left of a tagged sentence without its banned words; dead if nothing is, None if it is not read."""
    return SentenceReader(tokens, lexicon).sentence()
