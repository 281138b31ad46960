"""The subcommand `check` of `tools/make_captions.py`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmovseg.atomic import atomic_write
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.checks.dataset import CheckOptions, check_records, drop_found
from mmovseg.projects.sartext.captioning.checks.findings import Lexicons, count_tokens_with_clip
from mmovseg.projects.sartext.captioning.checks.report import format_report, make_report
from mmovseg.projects.sartext.captioning.rewriting.lexicon import load_lexicon
from mmovseg.projects.sartext.captioning.schema import read_captions, write_captions


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    defaults = CheckOptions()
    parser.set_defaults(run=run_check)
    parser.add_argument("--captions", nargs="+", required=True, metavar="JSONL", help="caption files, put together")
    parser.add_argument("--report", metavar="JSON", help="write the report")
    parser.add_argument("--fix", metavar="JSONL", help="write the captions without those found")
    parser.add_argument(
        "--lexicon", nargs="+", default=[], metavar="JSON", help="what captions were made with, besides the shipped one"
    )
    parser.add_argument("--banned", metavar="JSON", help="word lists instead of the shipped banned_words.json")
    parser.add_argument(
        "--min-tokens", type=int, default=defaults.shortest, metavar="N", help=f"default: {defaults.shortest}"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=defaults.longest,
        metavar="N",
        help=f"with start and end (default: {defaults.longest}, the context of CoCa)",
    )
    parser.add_argument(
        "--near",
        type=float,
        default=defaults.near,
        metavar="SHARE",
        help=f"of word triples that nearly identical captions share (default: {defaults.near})",
    )
    parser.add_argument(
        "--cap",
        type=int,
        default=defaults.cap,
        metavar="N",
        help=f"nearly identical captions that a split may hold; 0 = any number (default: {defaults.cap})",
    )
    parser.add_argument("--scene-pattern", metavar="REGEX", help="finds the source scene in image_id: (?P<scene>...)")
    parser.add_argument("--root", metavar="DIR", help="of the images, to see whether they exist")


def run_check(args: argparse.Namespace) -> None:
    """Check, print the table, write what was asked for."""
    if args.min_tokens < 1 or args.max_tokens < args.min_tokens + 2:
        raise UserError(f"--min-tokens {args.min_tokens} and --max-tokens {args.max_tokens} leave no length")
    if not 0 < args.near <= 1 or args.cap < 0:
        raise UserError(f"--near must be above 0 and at most 1, --cap at least 0, got {args.near} and {args.cap}")
    records = [record for path in args.captions for record in read_captions(path)]
    options = CheckOptions(
        shortest=args.min_tokens,
        longest=args.max_tokens,
        near=args.near,
        cap=args.cap or None,
        scene_pattern=args.scene_pattern,
        root=None if args.root is None else Path(args.root),
    )
    lexicon = load_lexicon() if args.banned is None else load_lexicon(banned=args.banned)
    made_with = Lexicons(args.lexicon)
    result = check_records(
        records,
        lexicon=lexicon,
        count_tokens=count_tokens_with_clip(),
        options=options,
        caption_lexicons=made_with,
    )
    report = make_report(args.captions, records, result)
    if args.report is not None:
        with atomic_write(args.report) as temporary:
            temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(format_report(report))
    if args.fix is not None:
        kept = list(drop_found(records, result.findings))
        if not kept:
            raise UserError(f"every caption of {', '.join(args.captions)} has a finding: nothing is left for --fix")
        write_captions(args.fix, kept)
        print(f"\n{sum(len(one.captions) for one in kept)} captions of {len(kept)} images left; wrote {args.fix}")
