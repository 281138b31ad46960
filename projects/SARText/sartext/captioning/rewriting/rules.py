"""Rewrite a caption of an optical image into one that its SAR twin can have, by rules.

Words that a SAR image cannot justify go (`banned_words.json`), and with them what hangs on them: a phrase without its
head, a verb without its object, a clause without its subject. "aerial photo" and the like become "SAR image". Articles
and verbs are mended. What can no longer be read, is too short or still holds a banned word is dropped, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmovseg.projects.sartext.captioning.rewriting.lexicon import Lexicon, default_lexicon
from mmovseg.projects.sartext.captioning.rewriting.phrases import Words
from mmovseg.projects.sartext.captioning.rewriting.reader import read_sentence
from mmovseg.projects.sartext.captioning.rewriting.tokens import BANNED, Tag, split_sentences, tag_words

VERSION = "1"
MIN_CONTENT_WORDS = 5
Reason = Literal["empty", "nothing left", "not read", "short", "banned word left"]
_VOWELS = "aeiou"


@dataclass(frozen=True)
class Rewritten:
    """A caption after the rules.

    Attributes:
        text: the caption for the SAR image, None where it was dropped.
        rules: names of the rules that did something: categories of banned words, and what was mended or lost.
        reason: why it was dropped, None where it was not.
        content_words: words left that are no function words.
    """

    text: str | None
    rules: tuple[str, ...]
    reason: Reason | None = None
    content_words: int = 0


class CaptionRewriter:
    """Rewrites captions; the same caption always becomes the same text.

    Args:
        lexicon: the word lists; None takes those of the project.
        min_content_words: a caption with fewer words that are no function words is dropped. Five is the length below
            which what is left ("the airport") names a place and says nothing about the image.
    """

    def __init__(self, lexicon: Lexicon | None = None, *, min_content_words: int = MIN_CONTENT_WORDS) -> None:
        self.lexicon = default_lexicon() if lexicon is None else lexicon
        self.min_content_words = min_content_words
        self._done: dict[str, Rewritten] = {}

    def rewrite(self, caption: str) -> Rewritten:
        """Return the caption for the SAR image, or why there is none."""
        if caption not in self._done:  # published captions repeat: one of UCM occurs 60 times
            self._done[caption] = self._rewrite(caption)
        return self._done[caption]

    def _rewrite(self, caption: str) -> Rewritten:
        sentences = split_sentences(caption, self.lexicon)
        if not sentences:
            return Rewritten(None, (), "empty")
        kept: list[Words] = []
        rules: set[str] = set()
        lost = unread = False
        for words in sentences:
            done, more = self._rewrite_sentence(words)
            rules |= more
            unread = unread or done is None
            if done and not (lost and self._refers_back(done)):
                kept.append(done)
            else:
                lost = True
        if not kept:
            return Rewritten(None, tuple(sorted(rules)), "not read" if unread else "nothing left")
        if lost:
            rules.add("sentence")
        text = ". ".join(self._spell(words) for words in _name_medium_once(kept))
        if _mend_articles(text) != text:
            rules.add("article")
            text = _mend_articles(text)
        return self._judge(text, rules)

    def _judge(self, text: str, rules: set[str]) -> Rewritten:
        count = self.count_content_words(text)
        done = tuple(sorted(rules))
        if self.lexicon.find_banned(text):
            return Rewritten(None, done, "banned word left", count)
        if count < self.min_content_words:
            return Rewritten(None, done, "short", count)
        return Rewritten(text, done, None, count)

    def count_content_words(self, text: str) -> int:
        """Return the number of words that are no articles, prepositions, pronouns, linking words or forms of "be"."""
        words = re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", text.lower())
        return sum(word not in self.lexicon.words("function words") for word in words)

    def _rewrite_sentence(self, words: Sequence[str]) -> tuple[Words | None, set[str]]:
        """Return what is left, no words if nothing is, None if the sentence was not understood; and the rules."""
        tokens = tag_words(words, self.lexicon)
        if all(token.tag is Tag.BANNED_ADVERB or token.tag not in BANNED for token in tokens):
            touched = {token.category or "filler" for token in tokens if token.tag is Tag.BANNED_ADVERB}
            plain: Words = tuple(token.text for token in tokens if token.tag is not Tag.BANNED_ADVERB)
        else:
            touched, plain = set(), ()
        left = read_sentence(tokens, self.lexicon)
        if left is not None:
            rules = set(left.rules)
            if plain and left.alive and len(left.words) == len(plain) and left.words != plain:
                rules.add("agreement")
            return left.words, rules
        return (plain or None), touched | ({"medium"} if "SAR image" in plain else set())

    def _refers_back(self, words: Words) -> bool:
        return any(word in self.lexicon.words("referring back") for word in words)

    @staticmethod
    def _spell(words: Words) -> str:
        text = re.sub(r"(?: ,)+(?= )", ",", " ".join(words))
        return re.sub(r"^(?:,|and|or|but|while|whereas)+ | ?,$", "", text).strip()


def _name_medium_once(sentences: Sequence[Words]) -> list[Words]:
    """Return the sentences with "SAR image" the first time and "image" from then on."""
    seen = False
    result = []
    for words in sentences:
        done: list[str] = []
        for word in words:
            if word.startswith("SAR image"):
                done.append(word.removeprefix("SAR ") if seen else word)
                seen = True
            else:
                done.append(word)
        result.append(tuple(done))
    return result


def _mend_articles(text: str) -> str:
    """Return the text with "a" or "an" as the sound of the next word wants it."""

    def article(match: re.Match[str]) -> str:
        return f"{'an' if sounds_like_vowel(match.group(2)) else 'a'} {match.group(2)}"

    return re.sub(r"\b(an?) ([\w'-]+)", article, text)


def sounds_like_vowel(word: str) -> bool:
    """Say whether a word begins with the sound of a vowel: "hour", "s-shaped", not "unique", "SAR"."""
    word = word.lower()
    if word[0].isdigit():
        return word.startswith(("8", "11", "18"))
    if len(word) == 1 or re.match(r"[a-z]-", word):
        return word[0] in "aefhilmnorsx"
    if re.match(r"(?:hour|honest|honou?r|heir)", word):
        return True
    if re.match(r"(?:uni(?!m|n)|us[aeiu]|eu|one(?!\w)|one-|once|ut[ei]|u-)", word):
        return False
    return word[0] in _VOWELS
