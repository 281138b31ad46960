"""What can be wrong with one caption: its length, its words, what it says about the annotation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.lexicon import Lexicon as CaptionLexicon
from mmovseg.projects.sartext.captioning.lexicon import load_lexicon
from mmovseg.projects.sartext.captioning.parsing import find_faults, parse_caption
from mmovseg.projects.sartext.captioning.rewriting.lexicon import Lexicon
from mmovseg.projects.sartext.captioning.schema import CaptionRecord

Kind = Literal[
    "short",
    "long",
    "language",
    "banned word",
    "noun",
    "count",
    "other statement",
    "duplicate in image",
    "near duplicate in image",
    "over the cap",
    "split leakage",
    "missing image",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
REPORTED_ONLY: frozenset[Kind] = frozenset({"near duplicate in image"})
"""Captions of one image are often alike, and a training step takes one of them: no reason to drop any."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a caption, or with all of an image (`caption` None)."""

    kind: Kind
    record: int
    caption: int | None
    message: str


@dataclass
class Statements:
    """How many things captions say about their annotation, and how many of them are right."""

    nouns: int = 0
    wrong_nouns: int = 0
    counts: int = 0
    wrong_counts: int = 0

    @property
    def noun_precision(self) -> float | None:
        """Share of the classes named that are annotated; None where none is named."""
        return None if not self.nouns else 1 - self.wrong_nouns / self.nouns

    @property
    def count_accuracy(self) -> float | None:
        """Share of the counts stated that are right; None where none is stated."""
        return None if not self.counts else 1 - self.wrong_counts / self.counts


def check_length(count: int, *, shortest: int, longest: int) -> tuple[Kind, str] | None:
    """Return what is wrong with a caption of so many tokens; those of start and end count for `longest` only."""
    if count < shortest:
        return "short", f"{count} tokens, fewer than {shortest}"
    if count + 2 > longest:
        return "long", f"{count + 2} tokens with start and end, more than {longest}"
    return None


def check_language(caption: str, lexicon: Lexicon) -> str | None:
    """Return why a caption does not look English, None if it does: foreign letters, or no small English word."""
    foreign = re.search(r"[^\W\d_a-zA-Z\u00c0-\u024f]", caption)
    if foreign:
        return f"the letter '{foreign.group()}'"
    words = re.findall(r"[a-z\u00c0-\u024f'-]+", caption.lower())
    small = lexicon.words("function words") | lexicon.words("determiner") | lexicon.words("preposition")
    if len(words) >= 6 and not any(word in small for word in words):
        return "no small English word"
    return None


class Lexicons:
    """The lexicons that captions were made with, found by the hash in their provenance; the shipped one is there.

    Args:
        paths: of lexicons of one's own.

    Raises:
        UserError: see `captioning.lexicon.load_lexicon`.
    """

    def __init__(self, paths: Iterable[str | Path] = ()) -> None:
        shipped = load_lexicon()
        self._known = {one.sha256[:12]: one for one in (shipped, *map(load_lexicon, paths))}
        self._shipped = shipped.sha256[:12]
        self._limited: dict[tuple[str, tuple[str, ...]], CaptionLexicon] = {}

    def find(self, key: str | None, classes: Iterable[str]) -> CaptionLexicon | None:
        """Return the lexicon of that hash limited to these classes; None takes the shipped one, unknown gives None."""
        key = self._shipped if key is None else key
        if key not in self._known:
            return None
        chosen = (key, tuple(classes))
        if chosen not in self._limited:
            self._limited[chosen] = self._known[key].for_classes(chosen[1])
        return self._limited[chosen]


def check_statements(
    record: CaptionRecord, position: int, statements: Mapping[str, Statements], lexicons: Lexicons
) -> Iterator[tuple[Kind, int, str]]:
    """Yield what the captions of a record state against its facts, and count what they state.

    Args:
        record: of the route annotation or segmentation, with `classes` and `facts` in its provenance.
        position: for error messages.
        statements: route -> count, filled here.
        lexicons: with that of the record, without which its words mean nothing or something else.

    Raises:
        UserError: the provenance lacks what is needed, or the lexicon of the record is not given.
    """
    facts, classes = record.provenance.get("facts"), record.provenance.get("classes")
    if not isinstance(facts, Mapping) or not isinstance(classes, Sequence):
        raise UserError(
            f"record {position + 1} (image '{record.image}') is of the route '{record.route}' without facts and classes"
        )
    made_with = record.provenance.get("lexicon")
    lexicon = lexicons.find(made_with, classes)
    if lexicon is None:
        raise UserError(
            f"record {position + 1} (image '{record.image}') was made with the lexicon {made_with!r:.20}, which is not "
            "the shipped one: name its file with --lexicon"
        )
    total = statements[record.route]
    for index, caption in enumerate(record.captions):
        parsed = parse_caption(caption, lexicon)
        total.nouns += len(parsed.mentions)
        total.counts += sum(mention.count is not None for mention in parsed.mentions)
        for fault in find_faults(parsed, facts):
            total.wrong_nouns += fault.kind == "noun"
            total.wrong_counts += fault.kind == "count"
            kind: Kind = fault.kind if fault.kind in ("noun", "count") else "other statement"
            yield kind, index, str(fault)


def count_tokens_with_clip() -> Callable[[str], int]:
    """Return a function that counts the byte-pair tokens of a text as CLIP cuts it."""
    from open_clip import SimpleTokenizer  # imports torch: seconds

    tokenizer = SimpleTokenizer()
    return lambda text: len(tokenizer.encode(text))
