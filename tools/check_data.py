#!/usr/bin/env python
"""Check a data set on disk: counts, pairs, sizes, label values, georeference, and the hashes of its manifest.

    tools/check_data.py pie_cloud                     all splits; one line a fault
    tools/check_data.py pie                           all that datasets/prepare_pie.py makes and that is there
    tools/check_data.py oem_thick --split val --fast  names, headers and sizes only
    tools/check_data.py ddhr_sk --write-manifest      describe a clean copy, so that later changes are seen
    tools/check_data.py rsicd                         images and text: captions and boxes are checked too
    tools/check_data.py ospretrain                    pretraining data laid out as OSPretrain-1M, every source

Exit status: 0 = no fault, 1 = faults, 2 = the data set is unknown or not there. Kinds of faults are listed in
mmovseg/data/datasets/check.py, expected folders in datasets/README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.datasets.catalog import DatasetEntry, datasets_root, entries_made_by
from mmovseg.data.datasets.check import CheckReport, inspect_dataset
from mmovseg.data.datasets.check_ospretrain import inspect_ospretrain
from mmovseg.data.datasets.layouts import find_layout
from mmovseg.data.datasets.manifest import MANIFEST_FILE, write_manifest
from mmovseg.data.datasets.ospretrain import FOLDER
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.sartext.data.check import inspect_text_set
from mmovseg.projects.sartext.data.sets import TextSet, text_sets_made_by


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "name", help="data set without its split, for example pie_cloud, or all of a prepare script: pie"
    )
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="default: all")
    parser.add_argument("--root", type=Path, metavar="DIR", help="data root (default: $DETECTRON2_DATASETS)")
    parser.add_argument("--fast", action="store_true", help="read names, headers and sizes only")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="reading threads (default: 2)")
    parser.add_argument(
        "--write-manifest",
        action="store_true",
        help="check without the manifest that may be there and, if there is no fault but the count, write a new one",
    )
    parser.add_argument("--quiet", action="store_true", help="draw no progress bar")
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; `argv` None takes that of the process. Returns the exit status."""
    args = argument_parser().parse_args(argv)
    if args.name == "ospretrain":
        return check_pretraining(args)
    text_sets = text_sets_made_by(args.name)
    if text_sets:
        present_sets = [known for known in text_sets if folders_of(known.entry, args.root)] or text_sets[:1]
        return max([check(known, args) for known in present_sets])
    entries = entries_made_by(args.name)
    # of the variants that a script can make, one alone may be wanted; a set that was named must be there
    wanted = [entry for entry in entries if not args.split or set(args.split) <= set(entry.splits)] or entries
    present = [entry for entry in wanted if folders_of(entry, args.root)] or wanted[:1]
    return max([check(entry, args) for entry in present])


def check_pretraining(args: argparse.Namespace) -> int:
    """Check OSPretrain-1M, print what is found, return the exit status."""
    if args.split or args.write_manifest:
        raise UserError("ospretrain has sources instead of splits and no manifest: leave --split, --write-manifest out")
    root = None if args.root is None else args.root / FOLDER
    report = inspect_ospretrain(root, fast=args.fast, workers=args.workers, show_progress=not args.quiet)
    print_report(args.name, report)
    return 1 if report.faults else 0


def check(known: DatasetEntry | TextSet, args: argparse.Namespace) -> int:
    """Check one data set, print what is found, write its manifest if asked to; return the exit status."""
    options = {
        "splits": args.split,
        "root": args.root,
        "fast": args.fast,
        "use_manifest": not args.write_manifest,
        "workers": args.workers,
        "show_progress": not args.quiet,
    }
    if isinstance(known, TextSet):
        entry, report = known.entry, inspect_text_set(known, **options)
    else:
        entry, report = known, inspect_dataset(known.name, **options)
    print_report(entry.name, report)
    if not args.write_manifest:
        return 1 if report.faults else 0
    if any(fault.kind != "wrong_count" for fault in report.faults):
        print("no manifest written: it would describe a faulty copy")
        return 1
    folder = folders_of(entry, args.root)[0]
    manifest = write_manifest(folder, show_progress=not args.quiet)
    print(f"wrote {folder / MANIFEST_FILE}: {len(manifest['files'])} files")
    return 0


def print_report(name: str, report: CheckReport) -> None:
    """Print a line a fault, the notes, and a summary."""
    for fault in report.faults:
        print(fault)
    for note in report.notes:
        print(f"note: {note}")
    pairs = ", ".join(f"{split} {count}" for split, count in report.pairs.items()) or "none"
    counts = Counter(fault.kind for fault in report.faults)
    result = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())) or "no fault"
    print(f"{name}: pairs: {pairs}; {result}")


def folders_of(entry: DatasetEntry, root: Path | None) -> list[Path]:
    """Return the folder of the data set for each of its splits that is there; the check looks at the same."""
    base = root or datasets_root()
    splits = dict.fromkeys(split for layout in entry.layouts for split in layout.folders)
    found = [(split, find_layout(entry.layouts, split, base)) for split in splits]
    return [base / layout.set_folder(split) for split, layout in found if layout is not None]


if __name__ == "__main__":
    sys.exit(main())
