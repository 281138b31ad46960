#!/usr/bin/env python
"""Let people judge a sample of captions, and say how far they agree.

    tools/audit_captions.py sample --captions a.jsonl b.jsonl --root DATA --page audit.html --sheet audit.csv
    tools/audit_captions.py agreement --ratings audit_ann.csv audit_bob.csv --report agreement.json

The page needs no server: every rater opens the file, gives a name, rates, and saves a CSV. The sheet is the same as a
spreadsheet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmovseg.atomic import atomic_write
from mmovseg.data.sar import SAR_UNITS
from mmovseg.errors import OneLineParser, UserError, exit_on_user_error
from mmovseg.projects.sartext.captioning.audit.agreement import compare_raters, format_agreement
from mmovseg.projects.sartext.captioning.audit.page import page_text
from mmovseg.projects.sartext.captioning.audit.sample import draw_sample, read_sheet, sheet_text
from mmovseg.projects.sartext.captioning.schema import IMAGE_ROLES, read_captions


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of both subcommands."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    sample = commands.add_parser("sample", help="draw captions to judge", allow_abbrev=False)
    sample.set_defaults(run=make_sample)
    sample.add_argument("--captions", nargs="+", required=True, metavar="JSONL", help="caption files, put together")
    sample.add_argument("--root", metavar="DIR", help="of the images (default: the page shows none)")
    sample.add_argument(
        "--role",
        choices=IMAGE_ROLES,
        help="what the images are (default: optical where a folder of the path is called so, else sar)",
    )
    sample.add_argument("--sar-unit", choices=SAR_UNITS, default="amplitude8", help="default: amplitude8")
    sample.add_argument(
        "--per-cell", type=int, default=50, metavar="N", help="captions of each source and route (default: 50)"
    )
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    sample.add_argument("--page", metavar="HTML", help="write the page")
    sample.add_argument("--sheet", metavar="CSV", help="write the sheet")
    agreement = commands.add_parser("agreement", help="of one or two raters", allow_abbrev=False)
    agreement.set_defaults(run=report_agreement)
    agreement.add_argument("--ratings", nargs="+", required=True, metavar="CSV", help="one or two sheets, filled in")
    agreement.add_argument("--report", metavar="JSON", help="write the report")
    return parser


def make_sample(args: argparse.Namespace) -> None:
    """Draw the sample; write page and sheet."""
    if args.page is None and args.sheet is None:
        raise UserError("nothing to write: give --page, --sheet or both")
    records = [record for path in args.captions for record in read_captions(path)]
    items = draw_sample(records, per_cell=args.per_cell, seed=args.seed)
    texts = []
    if args.page is not None:
        texts.append((args.page, page_text(items, root=args.root, sar_unit=args.sar_unit, role=args.role)))
    if args.sheet is not None:
        texts.append((args.sheet, sheet_text(items)))
    for path, text in texts:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    cells = len({(one.source, one.route) for one in items})
    print(f"{len(items)} captions of {cells} pairs of source and route; wrote {', '.join(path for path, _ in texts)}")


def report_agreement(args: argparse.Namespace) -> None:
    """Read the sheets, print the report, write it if asked for."""
    report = compare_raters([(Path(path).stem, read_sheet(path)) for path in args.ratings])
    if args.report is not None:
        with atomic_write(args.report) as temporary:
            temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(format_agreement(report))


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    main()
