"""Caption text to tagged words: spelling, phrases that count as one word, and a word class for each.

The classes come from the word lists, from endings ("-ly", "-ed", "-ing") and from the neighbours. That is far from a
tagger for English, and enough for the plain sentences of remote-sensing captions; what the parser then cannot read is
left out, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mmovseg.projects.sartext.captioning.rewriting.lexicon import Lexicon, replace_stamps


class Tag(StrEnum):
    """Class of a word; those of banned words are their own, because a phrase lives or dies by them."""

    DETERMINER = "determiner"
    ADJECTIVE = "adjective"
    ADVERB = "adverb"
    NOUN = "noun"
    PRONOUN = "pronoun"
    VERB = "verb"
    BE = "be"
    MODAL = "modal"
    ING = "ing"
    PARTICIPLE = "participle"
    PREPOSITION = "preposition"
    TO = "to"
    CONJUNCTION = "conjunction"
    SUBORDINATOR = "subordinator"
    RELATIVE = "relative"
    THERE = "there"
    COMMA = "comma"
    BANNED_MODIFIER = "banned modifier"
    BANNED_NOUN = "banned noun"
    BANNED_VERB = "banned verb"
    BANNED_ADVERB = "banned adverb"
    BANNED_PREPOSITION = "banned preposition"


FINITE = frozenset({Tag.VERB, Tag.BE, Tag.MODAL, Tag.BANNED_VERB})
BANNED = frozenset(tag for tag in Tag if tag.value.startswith("banned"))


@dataclass(frozen=True)
class Token:
    """A word, or a phrase that counts as one.

    `category` bans it (None: it may stay); `plural` is what a noun or determiner says about its number, None = nothing.
    """

    text: str
    tag: Tag
    category: str | None = None
    plural: bool | None = None


_COLOUR_LEADERS = frozenset({"deep", "pure", "light", "dark", "bright", "pale", "vivid", "dull", "bottle", "grass"})
_MEDIUM_NOUNS = frozenset(
    {"photo", "photos", "photograph", "photographs", "picture", "pictures", "image", "images", "imagery", "snapshot"}
    | {"screenshot", "footage", "view", "views"}
)
_MEDIUM_WORDS = frozenset(
    {
        "sar",
        "aerial",
        "satellite",
        "optical",
        "rgb",
        "multispectral",
        "panchromatic",
        "remote",
        "sensing",
        "remote-sensing",
    }
    | {"google", "earth", "high", "low", "resolution", "high-resolution", "bird's", "bird's-eye", "eye", "drone", "uav"}
    | {"color", "colour", "infrared", "overhead", "top-down"}
)
_VIEW_NEEDS = frozenset({"aerial", "satellite", "eye", "bird's-eye", "overhead", "drone", "top-down"})
_SHAPES = frozenset({"circle", "square", "rectangle", "ring", "arc", "triangle", "diamond", "fan", "cross", "cone"})
_MOTION = frozenset({"pass", "cross", "run"})
_ACTIONS = frozenset({"crossing", "parking", "landing", "docking", "turning", "planting", "standing"})
_ADJECTIVE_ENDINGS = ("-shaped", "-sized", "-lined", "-like", "-style", "-way", "-lane", "-storey", "-story", "-sided")
_ADJECTIVE_ENDINGS += ("-level", "-rise", "-dimensional", "-built", "-scale", "-looking", "-density", "-axis")


def split_sentences(text: str, lexicon: Lexicon) -> list[list[str]]:
    """Return the sentences of a caption as lower-case words and commas, spelling mended.

    Two or more blanks between words are read as the comma that some published caption files have lost there.
    """
    text = replace_stamps(text.strip().lower().replace("\u2019", "'").replace("_", " "))
    text = re.sub(r"(?<=\w) {2,}(?=\w)", " , ", text)
    for wrong, meant in lexicon.replacements:
        text = wrong.sub(meant, text)
    text = re.sub(r"[\"“”()\[\]{}<>|*~#`/\\]", " ", text).replace(";", ",").replace(":", ",")
    text = re.sub(r"(?<!\w)'|'(?!\w)|(?<!\w)-+|-+(?!\w)", " ", text)
    sentences = []
    for part in re.split(r"[.!?]+(?=\s|$)|\s\.", text):
        words: list[str] = []
        for word in re.findall(r"[^\W_]+(?:[-'.][^\W_]+)*|,", part):
            words += lexicon.spelling.get(word, word).split()
        words = [word for index, word in enumerate(words) if not index or _may_follow(words[index - 1], word, lexicon)]
        while words and words[-1] == ",":
            words.pop()
        if words:
            sentences.append(words)
    return sentences


def _may_follow(before: str, word: str, lexicon: Lexicon) -> bool:
    """Say whether a word can follow: not a comma after an article, nor the same small word again ("with with")."""
    if word == ",":
        return before not in (",", "a", "an", "the", "of", "with", "by", "and") and before not in lexicon.words("be")
    small = (
        lexicon.words("preposition") | lexicon.words("be") | lexicon.words("conjunction") | lexicon.words("singular")
    )
    return word != before or word not in small


def tag_words(words: Sequence[str], lexicon: Lexicon) -> list[Token]:
    """Return the words with their classes; phrases are one token, medium phrases are "SAR image" or "image"."""
    tokens = _merge(_merge_medium(list(words)), lexicon)
    tokens = [_in_context(tokens, index, lexicon) for index in range(len(tokens))]
    _find_verbs(tokens, lexicon)
    return [token for token in tokens if token.text or token.category]


def _merge_medium(words: list[str]) -> list[str]:
    """Return the words with every medium phrase ("a high resolution aerial photo") as one word."""
    merged: list[str] = []
    for index, word in enumerate(words):
        if word in _MEDIUM_NOUNS:
            start = len(merged)
            while start and merged[start - 1] in _MEDIUM_WORDS:
                start -= 1
            told = _VIEW_NEEDS.intersection(merged[start:])
            is_view_of = (
                index + 1 < len(words) and words[index + 1] == "of" and bool(merged) and merged[-1] in ("a", "the")
            )
            if word not in ("view", "views") or told or is_view_of:
                del merged[start:]
                merged.append("SAR images" if word.endswith("s") else "SAR image")
                continue
        merged.append(word)
    return merged


def _merge(words: Sequence[str], lexicon: Lexicon) -> list[Token]:
    longest = max((len(phrase.split()) for phrase in lexicon.phrases), default=1)
    tokens: list[Token] = []
    index = 0
    while index < len(words):
        pair = _pair_token(words, index, lexicon)
        if pair is not None:
            tokens.append(pair)
            index += 2
            continue
        for length in range(min(longest, len(words) - index), 1, -1):
            phrase = " ".join(words[index : index + length])
            if phrase in lexicon.phrases:
                tokens.append(_phrase_token(phrase, lexicon.phrases[phrase][0], lexicon))
                index += length
                break
        else:
            tokens.append(_tag_word(words[index], lexicon))
            index += 1
    return tokens


def _pair_token(words: Sequence[str], index: int, lexicon: Lexicon) -> Token | None:
    """Return "fan shaped" or "star like" as one modifier, None for other words."""
    if index + 2 >= len(words) or not index:
        return None
    first, second, before = words[index], words[index + 1], words[index - 1]
    if not first[0].isalnum() or first in lexicon.category_of["modifier"]:
        return None
    is_shape = second in ("shaped", "sized") or (
        second == "lined" and words[index + 2] not in ("with", "by", "up", "in")
    )
    if is_shape and first not in lexicon.words("adverb"):
        return Token(f"{first} {second}", Tag.ADJECTIVE)
    is_noun = first not in lexicon.words("determiner") and _tag_word(first, lexicon).tag in (Tag.NOUN, Tag.BANNED_NOUN)
    opens = _tag_word(before, lexicon).tag in (Tag.DETERMINER, Tag.ADJECTIVE, Tag.BANNED_MODIFIER)
    if second == "like" and is_noun and opens and _tag_word(words[index + 2], lexicon).tag is Tag.NOUN:
        return Token(f"{first} like", Tag.BANNED_MODIFIER, "simile")
    return None


def _phrase_token(phrase: str, name: str, lexicon: Lexicon) -> Token:
    if name == "banned noun":
        return Token(phrase, Tag.BANNED_NOUN, "texture", phrase.endswith("s"))
    if name == "banned modifier":
        return Token(phrase, Tag.BANNED_MODIFIER, "colour")
    if name == "banned preposition":
        return Token(phrase, Tag.BANNED_PREPOSITION, "simile")
    if name == "dropped":
        return Token(phrase, Tag.BANNED_ADVERB, "filler")
    plural = True if name == "determiner" else (is_plural(phrase, lexicon) if name == "noun" else None)
    return Token(phrase, Tag(name), None, plural)


def is_plural(noun: str, lexicon: Lexicon) -> bool:
    """Say whether a noun is a plural by its ending and the lists of exceptions."""
    last = noun.split()[-1]
    if len(last) < 3:
        return False
    if last in lexicon.words("plural nouns without s"):
        return True
    return last.endswith("s") and not last.endswith("'s") and last not in lexicon.words("singular nouns that end in s")


_LISTED = (
    ("be", Tag.BE),
    ("have", Tag.VERB),
    ("modal", Tag.MODAL),
    ("subordinator", Tag.SUBORDINATOR),
    ("relative", Tag.RELATIVE),
    ("conjunction", Tag.CONJUNCTION),
    ("determiner", Tag.DETERMINER),
    ("pronoun", Tag.PRONOUN),
    ("verb", Tag.VERB),
    ("noun", Tag.NOUN),
    ("past participle", Tag.PARTICIPLE),
    ("adjective", Tag.ADJECTIVE),
    ("preposition", Tag.PREPOSITION),
    ("adverb", Tag.ADVERB),
    ("ly adjective", Tag.ADJECTIVE),
)
_BANNED_KINDS = (
    ("modifier", Tag.BANNED_MODIFIER),
    ("noun", Tag.BANNED_NOUN),
    ("adverb", Tag.BANNED_ADVERB),
    ("verb", Tag.BANNED_VERB),
    ("preposition", Tag.BANNED_PREPOSITION),
)


def _tag_word(word: str, lexicon: Lexicon) -> Token:
    if word == ",":
        return Token(word, Tag.COMMA)
    if word.startswith("SAR image"):
        return Token(word, Tag.NOUN, "medium", word.endswith("s"))
    for kind, tag in _BANNED_KINDS:
        if word in lexicon.category_of[kind]:
            plural = is_plural(word, lexicon) if tag is Tag.BANNED_NOUN else None
            return Token(word, tag, lexicon.category_of[kind][word], plural)
    if lexicon.colour_compound(word):
        return Token(word, Tag.BANNED_MODIFIER, "colour")
    if word[0].isdigit():
        return Token(word, Tag.DETERMINER, None, word != "1")
    tag = next((tag for name, tag in _LISTED if word in lexicon.words(name)), None) or _tag_by_ending(word)
    plural: bool | None = None
    if tag is Tag.DETERMINER:
        plural = True if word in lexicon.words("plural") else False if word in lexicon.words("singular") else None
    elif tag is Tag.NOUN:
        plural = is_plural(word, lexicon)
    return Token(word, tag, None, plural)


def _tag_by_ending(word: str) -> Tag:
    if word.endswith("ly") and len(word) > 4:
        return Tag.ADVERB
    if word.endswith(_ADJECTIVE_ENDINGS):
        return Tag.ADJECTIVE
    if word.endswith("ed") and len(word) > 4:
        return Tag.PARTICIPLE
    if word.endswith("ing") and len(word) > 5:
        return Tag.ING
    return Tag.NOUN


def _in_context(tokens: Sequence[Token], index: int, lexicon: Lexicon) -> Token:
    """Return a token with what its neighbours say about it."""
    token = tokens[index]
    before = tokens[index - 1] if index else Token("", Tag.COMMA)
    after = tokens[index + 1] if index + 1 < len(tokens) else Token("", Tag.COMMA)
    if (
        token.text in ("there", "here")
        and before.tag is not Tag.PARTICIPLE
        and after.tag in (Tag.BE, Tag.MODAL, Tag.ADVERB, Tag.BANNED_ADVERB)
    ):
        return Token(token.text, Tag.THERE)
    if token.text == "that" and before.tag in (Tag.NOUN, Tag.PRONOUN, Tag.BANNED_NOUN) and after.tag is not Tag.NOUN:
        return Token(token.text, Tag.RELATIVE)
    if token.text == "to" and after.tag is Tag.VERB:
        return Token(token.text, Tag.TO)
    if before.text in ("here", "there") and token.text in lexicon.words("noun or verb, third person"):
        return Token(token.text, Tag.VERB)
    if token.text == "one" and before.tag in (Tag.ADJECTIVE, Tag.BANNED_MODIFIER, Tag.PARTICIPLE):
        return Token(token.text, Tag.NOUN, None, False)
    if token.text in _ACTIONS and before.tag in (Tag.NOUN, Tag.BANNED_NOUN):
        if _starts_phrase(after) or (before.plural and after.tag is Tag.COMMA):
            return Token(token.text, Tag.ING)
    if token.text in _COLOUR_LEADERS and after.tag is Tag.BANNED_MODIFIER and after.category == "colour":
        return Token(token.text, Tag.BANNED_MODIFIER, "colour")
    if token.tag is Tag.ADJECTIVE and token.text.endswith("ing") and after.tag in (Tag.DETERMINER, Tag.PREPOSITION):
        return Token(token.text, Tag.ING)
    if token.tag is Tag.NOUN and token.text in _SHAPES and after.tag in (Tag.ADJECTIVE, Tag.BANNED_MODIFIER):
        return Token(token.text, Tag.ADJECTIVE)
    if token.tag is Tag.BANNED_NOUN and token.text in lexicon.category_of["verb"] and _starts_phrase(after):
        if before.tag in (Tag.NOUN, Tag.PRONOUN, Tag.RELATIVE):
            return Token(token.text, Tag.BANNED_VERB, token.category)
    return token


def _starts_phrase(token: Token) -> bool:
    return token.tag in (
        Tag.DETERMINER,
        Tag.PREPOSITION,
        Tag.BANNED_PREPOSITION,
        Tag.ADVERB,
        Tag.BANNED_ADVERB,
        Tag.TO,
        Tag.PRONOUN,
        Tag.PARTICIPLE,
        Tag.ADJECTIVE,
        Tag.BANNED_MODIFIER,
    )


def _find_verbs(tokens: list[Token], lexicon: Lexicon) -> None:
    """Make verbs, in place, of nouns that stand where the sentence needs one: "the roads cross the river"."""
    third, base = lexicon.words("noun or verb, third person"), lexicon.words("noun or verb, base")
    finite_seen = False
    subject: Token | None = None
    for index, token in enumerate(tokens):
        after = tokens[index + 1] if index + 1 < len(tokens) else Token("", Tag.COMMA)
        if token.tag in (Tag.COMMA, Tag.CONJUNCTION, Tag.SUBORDINATOR, Tag.RELATIVE):
            finite_seen, subject = False, token if token.tag is Tag.RELATIVE else None
            continue
        opens = _starts_phrase(after) or (token.text in base and after.tag is Tag.NOUN and bool(after.plural))
        if token.tag in (Tag.NOUN, Tag.ADJECTIVE) and subject is not None and not finite_seen and opens:
            fits_third = subject.tag is Tag.RELATIVE or not subject.plural
            fits_base = subject.tag in (Tag.RELATIVE, Tag.PRONOUN) or bool(subject.plural)
            is_sure = after.tag is Tag.DETERMINER or (
                token.text in _MOTION and after.tag is Tag.PREPOSITION and subject.text != "mountain"
            )
            if (token.text in third and (fits_third or is_sure)) or (token.text in base and (fits_base or is_sure)):
                tokens[index] = token = Token(token.text, Tag.VERB)
        finite_seen = (finite_seen or token.tag in FINITE) and token.text != "with"
        if token.tag in (Tag.NOUN, Tag.PRONOUN, Tag.BANNED_NOUN):
            subject = token
        elif token.tag not in (Tag.ADVERB, Tag.BANNED_ADVERB):
            subject = None
