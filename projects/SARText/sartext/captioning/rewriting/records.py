"""Rewrite whole caption files: one record in, one or none out, and an account of what became of every caption."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmovseg.projects.sartext.captioning.rewriting.lexicon import Lexicon
from mmovseg.projects.sartext.captioning.rewriting.rules import VERSION, CaptionRewriter, Rewritten
from mmovseg.projects.sartext.captioning.rewriting.sar_terms import SarTerm, add_sar_term
from mmovseg.projects.sartext.captioning.schema import CaptionRecord

TermCheck = Callable[[CaptionRecord], dict[str, float]]
PairCheck = Callable[[CaptionRecord], float]


@dataclass
class Account:
    """What became of the captions of one source.

    Attributes:
        captions: that came in.
        kept: that were written.
        unchanged: of the kept, those that no rule touched.
        outcomes: why the others were dropped -> how many; "duplicate" = equal to another of its image.
        rules: rule -> captions, of the kept, that it touched.
        lengths: content words left -> captions, dropped ones too.
        images: that came in.
        images_kept: with a caption left.
        rejected_pairs: images whose optical and SAR view do not agree.
    """

    captions: int = 0
    kept: int = 0
    unchanged: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    images: int = 0
    images_kept: int = 0
    rejected_pairs: int = 0

    def share_kept(self, min_content_words: int | None = None) -> float:
        """Return the share of captions kept; with a number, that which this `min_content_words` would keep."""
        if min_content_words is None:
            return self.kept / max(self.captions, 1)
        kept = sum(count for length, count in self.lengths.items() if length >= min_content_words)
        return kept / max(self.captions, 1)


@dataclass(frozen=True)
class RewritingOptions:
    """What else is done to a record.

    Attributes:
        keep_duplicates: keep captions that became equal within an image.
        min_agreement: images whose pair check gives less are left out; None asks for no check.
        terms: the SAR vocabulary to add where `check_terms` bears it out; none adds none.
    """

    keep_duplicates: bool = False
    min_agreement: float | None = None
    terms: tuple[SarTerm, ...] = ()


def lexicon_hash(lexicon: Lexicon) -> str:
    """Return the start of a SHA-256 over all word lists, for provenance."""
    content = json.dumps([lexicon.banned, lexicon.grammar, lexicon.spelling], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def rewrite_records(
    records: Iterable[CaptionRecord],
    rewriter: CaptionRewriter,
    accounts: dict[str, Account],
    *,
    options: RewritingOptions | None = None,
    check_pair: PairCheck | None = None,
    check_terms: TermCheck | None = None,
) -> Iterator[CaptionRecord]:
    """Yield the records that keep a caption, in their order.

    Args:
        records: with captions of optical images.
        rewriter: the rules.
        accounts: source -> account, filled here.
        options: None takes the defaults.
        check_pair: gives the agreement of the two views of a record; called if `min_agreement` is set.
        check_terms: gives the SAR terms that hold on the image of a record; called if there are terms.

    Raises:
        UserError: from the checks.
    """
    options = RewritingOptions() if options is None else options
    word_lists = lexicon_hash(rewriter.lexicon)
    for record in records:
        account = accounts.setdefault(record.source, Account())
        account.images += 1
        account.captions += len(record.captions)
        facts: dict[str, Any] = {}
        if options.min_agreement is not None and check_pair is not None:
            facts["edge_agreement"] = round(check_pair(record), 4)
            if facts["edge_agreement"] < options.min_agreement:
                account.rejected_pairs += 1
                account.outcomes["pair rejected"] += len(record.captions)
                continue
        results = [rewriter.rewrite(caption) for caption in record.captions]
        kept = _keep(results, account, keep_duplicates=options.keep_duplicates)
        if not kept:
            continue
        account.images_kept += 1
        texts = [str(results[index].text) for index in kept]
        rules = [list(results[index].rules) for index in kept]
        if options.terms and check_terms is not None:
            facts["sar_terms"] = {phrase: round(value, 2) for phrase, value in check_terms(record).items()}
            texts = _add_terms(texts, rules, list(facts["sar_terms"]), options.terms)
        facts["original"] = kept
        provenance = {"seed": 0, "version": VERSION, "lexicon": word_lists, "rules": rules, "facts": facts}
        if "scene" in record.provenance:  # what it was cut from does not change with the words
            provenance["scene"] = record.provenance["scene"]
        yield CaptionRecord(
            image=record.image,
            image_id=record.image_id,
            source=record.source,
            route="rewriting",
            split=record.split,
            captions=tuple(texts),
            provenance=provenance,
            optical_image=record.optical_image,
        )


def _keep(results: Sequence[Rewritten], account: Account, *, keep_duplicates: bool) -> list[int]:
    """Return the positions of the captions that stay, and enter all of them into the account."""
    kept: list[int] = []
    seen: set[str] = set()
    for index, result in enumerate(results):
        account.lengths[result.content_words] += 1
        if result.text is None:
            account.outcomes[str(result.reason)] += 1
        elif result.text in seen and not keep_duplicates:
            account.outcomes["duplicate"] += 1
        else:
            seen.add(result.text)
            kept.append(index)
            account.unchanged += not result.rules
            account.rules.update(result.rules)
    account.kept += len(kept)
    return kept


def _add_terms(
    texts: list[str], rules: list[list[str]], verified: Sequence[str], terms: Sequence[SarTerm]
) -> list[str]:
    done = []
    for text, names in zip(texts, rules, strict=True):
        longer, phrase = add_sar_term(text, verified, terms=terms)
        if phrase is not None:
            names.append("sar term")
        done.append(longer)
    return done


def place_images(record: CaptionRecord, folder: str, suffix: str) -> CaptionRecord:
    """Return a record of an optical image as one of its SAR twin `<folder>/<stem><suffix>`."""
    stem = Path(record.image).stem
    content = record.to_dict() | {"image": f"{folder.rstrip('/')}/{stem}{suffix}", "optical_image": record.image}
    return CaptionRecord(**content)
