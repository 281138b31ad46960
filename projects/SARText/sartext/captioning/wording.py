"""Seeded choice of words, and the small grammar of templates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.facts import MANY, SEVERAL, Count
from mmovseg.projects.sartext.captioning.lexicon import Lexicon, Noun
from mmovseg.projects.sartext.captioning.parsing import find_faults, parse_caption

T = TypeVar("T")


class Chooser:
    """Choices that follow from seed, data set, image and slot alone, whatever was chosen before or elsewhere."""

    def __init__(self, seed: int, source: str, image_id: str, *, turn: int = 0) -> None:
        self.key = f"{seed}\0{source}\0{image_id}\0{turn}"

    def index(self, count: int, *slot: object) -> int:
        """Return a number below `count` for a slot."""
        text = "\0".join([self.key, *map(str, slot)])
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % count

    def pick(self, options: Sequence[T], *slot: object) -> T:
        """Return one of the options for a slot."""
        return options[self.index(len(options), *slot)]


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Return "a", "a and b", or "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def number_word(count: Count, lexicon: Lexicon, choose: Chooser, *slot: object) -> str:
    """Return a count in words, to stand before a noun."""
    return choose.pick(_numbers(count, lexicon), "number", *slot)


def number_alone(count: Count, lexicon: Lexicon) -> str:
    """Return a count in words that can stand without a noun: "one", neither "a single" nor "only one"."""
    words = _numbers(count, lexicon)
    return next((word for word in words if not word.startswith(("a ", "an "))), words[0])


def _numbers(count: Count, lexicon: Lexicon) -> list[str]:
    return lexicon.words["numbers"][{MANY: "more", SEVERAL: "several"}.get(str(count), str(count))]


def counted_noun(noun: Noun, count: Count, lexicon: Lexicon, choose: Chooser, *slot: object) -> str:
    """Return the noun of so many objects, such as "ships"; "areas of water" of what has no plural."""
    if not noun.singular:
        return f"{area_word(count, lexicon, choose, *slot)} {choose.pick(noun.cover, 'noun', *slot)}"
    return choose.pick(noun.singular if count == 1 else noun.plural, "noun", *slot)


def area_word(count: Count, lexicon: Lexicon, choose: Chooser, *slot: object) -> str:
    """Return "area of" or "areas of", or another word for it."""
    return choose.pick(lexicon.words["areas"]["singular" if count == 1 else "plural"], "area", *slot)


def article(phrase: str) -> str:
    """Return a phrase with "a" or "an" before it."""
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def check_readable(text: str, stated: Sequence[tuple[str, Count]], facts: dict, lexicon: Lexicon) -> None:
    """Raise where a caption cannot be read back to what was to be said; an own lexicon may be ambiguous.

    Args:
        text: the caption.
        stated: (class, count) of the mentions, in the order of the text.
        facts: of the image.
        lexicon: that the caption was written with.

    Raises:
        UserError: the sentence names the caption and what is read from it.
    """
    parsed = parse_caption(text, lexicon)
    read = [(mention.category, mention.count) for mention in parsed.mentions]
    faults = find_faults(parsed, facts)
    if faults or read != list(stated):
        what = str(faults[0]) if faults else f"it is read as {read}, not {list(stated)}"
        raise UserError(f"the lexicon's caption '{text}' cannot be read back: {what}")


def is_plural(count: Count) -> bool:
    """Return whether a count takes a plural verb."""
    return count != 1
