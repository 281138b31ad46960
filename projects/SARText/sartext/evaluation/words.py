"""Caption text as the words that caption metrics count: an own tokenizer in the manner of the Penn Treebank.

Published captioning scores are taken on text that the PTBTokenizer of Stanford CoreNLP 3.4.1 has split, lower-cased and
freed from punctuation, which needs Java. The rules here are our own and follow what that program was seen to do; on
ordinary captions the two agree (the optional test compares them where `pycocoevalcap` and Java are installed).
Scores of text that was split at blanks only are not comparable with these.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from mmovseg.errors import UserError

Splitting = Literal["ptb", "blanks"]
SPLITTINGS: tuple[Splitting, ...] = get_args(Splitting)

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-lrb-", "-rrb-", "-lcb-", "-rcb-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""What is dropped; square brackets and runs such as "!!" are words there, and so they are here."""

_CHARACTERS = str.maketrans(
    {
        **{"‘": "'", "’": "'", "‛": "'", "′": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "″": '"'},
        **{"–": " -- ", "—": " -- ", "―": " -- ", "…": " ... ", "‐": "-", "‑": "-", "\u00a0": " ", "\u00ad": ""},
    }
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", '"': "''"}
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|e\\.g|i\\.e|inc|corp|co|ltd|ave|blvd|rd|mt|ft|fig|sq|"
    "jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
)
_SPLIT_WORDS = {
    **{"cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"), "wanna": ("wan", "na")},
    **{"lemme": ("lem", "me"), "gimme": ("gim", "me"), "dunno": ("du", "n", "no")},
}
_TOKEN = re.compile(
    rf"""
      (?:https?://|www\.)\S+ | [\w.+-]+@[\w-]+\.[\w.-]+ | @\w+ | \#[^\W\d]\w*   # addresses
    | n't\b | o'clock\b | 't(?=is\b|was\b)
    | '\d\ds\b                                                      # '90s
    | \d+(?:[.,:/-]\d+)*(?:[^\W\d_]\w*)?(?:-\w+)*                   # numbers, 10-15, 1/2, 10m
    | (?:[^\W\d_]\.)+(?!\w)                                         # u.s., and initials
    | (?:{_ABBREVIATIONS})\.(?!\w)                                                # abbreviations
    | [^\W_]+(?:[-/_&.][^\W_]+)*                                    # words, also l-shaped, and/or, at&t
    | \.\.\.+ | --+ | [!?]+                                         # runs
    | '(?:s|re|ve|ll|d|m)\b | '
    | \S
    """,
    re.VERBOSE,
)
_NOT = re.compile(r"(\w+)(n't)\b")


def split_words(text: str, splitting: Splitting = "ptb") -> list[str]:
    """Return the lower-case words of a caption, without punctuation.

    Args:
        text: any text; line breaks count as blanks.
        splitting: ``ptb`` follows the Penn Treebank ("don't" -> do n't, "l-shaped" stays whole); ``blanks`` splits at
            blanks and keeps everything, as some published evaluations do.

    Returns:
        Words, none when there is nothing but punctuation.

    Raises:
        UserError: unknown splitting.
    """
    if splitting not in SPLITTINGS:
        raise UserError(f"splitting is '{splitting}'; it can be: {', '.join(SPLITTINGS)}")
    if splitting == "blanks":
        return text.lower().split()
    plain = _NOT.sub(r"\1 \2", text.translate(_CHARACTERS).lower())
    words: list[str] = []
    for chunk in plain.split():
        for token in _TOKEN.findall(chunk):
            words.extend(_SPLIT_WORDS.get(token, (_BRACKETS.get(token, token),)))
    return [word for word in words if word not in PUNCTUATION]
