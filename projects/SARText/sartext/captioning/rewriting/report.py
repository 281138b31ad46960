"""What the rewriting rules did, as a table, and pairs of captions to read by hand."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mmovseg.projects.sartext.captioning.rewriting.records import Account
from mmovseg.projects.sartext.captioning.rewriting.rules import CaptionRewriter
from mmovseg.projects.sartext.captioning.schema import CaptionRecord

SHORTER = (5, 4, 3)


def summarise(accounts: Mapping[str, Account]) -> str:
    """Return one line a source, and why captions were dropped."""
    lines = []
    for source, account in sorted(accounts.items()):
        reasons = ", ".join(f"{name} {count}" for name, count in account.outcomes.most_common())
        lines.append(
            f"{source}: {account.kept} of {account.captions} captions kept ({100 * account.share_kept():.1f} %, "
            f"{account.unchanged} of them unchanged), {account.images_kept} of {account.images} images"
            + (f"; dropped: {reasons}" if reasons else "")
        )
    return "\n".join(lines)


def share_table(accounts: Mapping[str, Account]) -> str:
    """Return a Markdown table of captions kept, by how many content words a caption must have."""
    header = ["source", "captions", "images", *(f"kept, {count} words or more" for count in SHORTER)]
    header += ["not read", "nothing left", "banned word left"]
    rows = []
    for source, account in sorted(accounts.items()):
        shares = [f"{100 * account.share_kept(count):.1f} %" for count in SHORTER]
        lost = [f"{account.outcomes[name]}" for name in ("not read", "nothing left", "banned word left")]
        rows.append([source, str(account.captions), str(account.images), *shares, *lost])
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def sample_pairs(
    records: Sequence[CaptionRecord], rewriter: CaptionRewriter, *, count: int, seed: int
) -> list[tuple[str, str, str]]:
    """Return (source, before, after) of captions that the rules kept and changed, drawn at random.

    Equal captions are drawn once; the same records and seed give the same pairs.
    """
    captions = sorted({(record.source, caption) for record in records for caption in record.captions})
    random.Random(seed).shuffle(captions)
    pairs: list[tuple[str, str, str]] = []
    for source, before in captions:
        done = rewriter.rewrite(before)
        if done.text is not None and done.rules:
            pairs.append((source, before, done.text))
        if len(pairs) == count:
            break
    return pairs


def pairs_table(pairs: Sequence[tuple[str, str, str]]) -> str:
    """Return the pairs as a numbered Markdown table."""
    lines = ["| # | source | before | after |", "| --- | --- | --- | --- |"]
    for number, (source, before, after) in enumerate(pairs, start=1):
        lines.append(f"| {number} | {source} | {_cell(before)} | {_cell(after)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
