"""The subcommand `rewrite` of `tools/make_captions.py`: captions of optical images become captions of SAR images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mmovseg.atomic import atomic_write
from mmovseg.data.sar import SAR_UNITS
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.exchange import import_csv, import_rsicd
from mmovseg.projects.sartext.captioning.rewriting.lexicon import load_lexicon
from mmovseg.projects.sartext.captioning.rewriting.pair_gate import MIN_AGREEMENT, read_sar_db, score_files
from mmovseg.projects.sartext.captioning.rewriting.records import (
    Account,
    RewritingOptions,
    place_images,
    rewrite_records,
)
from mmovseg.projects.sartext.captioning.rewriting.report import pairs_table, sample_pairs, share_table, summarise
from mmovseg.projects.sartext.captioning.rewriting.rules import MIN_CONTENT_WORDS, CaptionRewriter
from mmovseg.projects.sartext.captioning.rewriting.sar_terms import load_sar_terms, verify_terms
from mmovseg.projects.sartext.captioning.rewriting.twins import TwinFolder
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, read_captions, write_captions
from mmovseg.projects.sartext.data.precomp import import_precomp

_PRECOMP = "_caps.txt"
_MARK = "<!-- written by tools/make_captions.py rewrite --pairs from here on -->"


def add_rewrite(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run_rewrite)
    parser.add_argument(
        "--captions",
        nargs="+",
        required=True,
        metavar="[SOURCE=]PATH",
        help="captions of optical images: JSONL, JSON of RSICD, <split>_caps.txt beside <split>_filename.txt, or CSV",
    )
    parser.add_argument("--output", metavar="FILE", help="JSONL file to write; appears when complete")
    parser.add_argument("--split", metavar="NAME", help="of a CSV; of others, keep this split (default: all)")
    parser.add_argument("--banned", metavar="JSON", help="word lists instead of the shipped banned_words.json")
    parser.add_argument(
        "--min-content-words",
        type=int,
        default=MIN_CONTENT_WORDS,
        metavar="N",
        help=f"drop captions with fewer (default: {MIN_CONTENT_WORDS})",
    )
    parser.add_argument("--keep-duplicates", action="store_true", help="of captions that became equal in an image")
    parser.add_argument("--root", metavar="DIR", help="of the images, for --sar-folder, --pair-gate and --sar-terms")
    parser.add_argument(
        "--sar-folder", metavar="DIR", help="below --root, with the SAR twins, same file stems; {split} is replaced"
    )
    parser.add_argument("--sar-unit", choices=SAR_UNITS, default="amplitude8", help="default: amplitude8")
    parser.add_argument(
        "--pair-gate",
        type=float,
        nargs="?",
        const=MIN_AGREEMENT,
        metavar="MIN",
        help=f"leave out images whose edges agree less with their SAR twin (default of the option: {MIN_AGREEMENT})",
    )
    parser.add_argument(
        "--sar-terms",
        metavar="DIR",
        help="label maps, same stems: say how water looks, if it does; {split} is replaced",
    )
    parser.add_argument("--vocabulary", metavar="NAME", help="of the label maps: shipped, or a JSON file")
    parser.add_argument(
        "--pairs", metavar="MD", help="write pairs to be read by hand, below the mark in a file that has it"
    )
    parser.add_argument("--num-pairs", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--pairs-seed", type=int, default=0, metavar="N", help="default: 0")


def run_rewrite(args: argparse.Namespace) -> None:
    """Rewrite, write, and say what became of the captions."""
    if args.output is None and args.pairs is None:
        raise UserError("nothing to write: give --output, --pairs or both")
    if args.min_content_words < 1 or args.num_pairs < 1:
        raise UserError(
            f"--min-content-words and --num-pairs must be at least 1, got {args.min_content_words}, {args.num_pairs}"
        )
    records = [record for text in args.captions for record in read_any(text, args.split)]
    if args.sar_folder is not None:
        records = _with_twins(records, args)
    rewriter = CaptionRewriter(
        load_lexicon() if args.banned is None else load_lexicon(banned=args.banned),
        min_content_words=args.min_content_words,
    )
    terms, check_terms = _term_check(args)
    if args.pair_gate is not None and args.root is None:
        raise UserError("--pair-gate reads both images: say with --root where their paths start")
    options = RewritingOptions(args.keep_duplicates, args.pair_gate, terms)
    accounts: dict[str, Account] = {}
    done = rewrite_records(
        tqdm(records, unit="image"),
        rewriter,
        accounts,
        options=options,
        check_pair=partial(_agreement, args=args),
        check_terms=check_terms,
    )
    if args.output is None:
        list(done)
    else:
        write_captions(args.output, _at_least_one(done))
    if args.pairs is not None:
        text = _kept_head(Path(args.pairs)) + _pairs_text(records, rewriter, accounts, args)
        with atomic_write(args.pairs) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(summarise(accounts))


def _at_least_one(records: Iterator[CaptionRecord]) -> Iterator[CaptionRecord]:
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        raise UserError("the rules left no caption of these files; a lower --min-content-words keeps shorter ones")


def read_any(text: str, split: str | None) -> list[CaptionRecord]:
    """Read a caption file of any layout; `text` is a path, or a name of the data set, "=" and a path.

    Raises:
        UserError: it is missing or none of the layouts, or a layout without splits was not given one.
    """
    source, equals, path = text.partition("=")
    if not equals:
        source, path = "", text
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in (".jsonl", ".json") or file.name.endswith(_PRECOMP):
        records = _read_with_splits(file, source)
        kept = [record for record in records if split in (None, record.split)]
        if not kept:
            known = ", ".join(sorted({record.split for record in records}))
            raise UserError(f"'{path}' has no split '{split}'; it has: {known}")
        return kept
    if suffix not in (".csv", ".tsv"):
        raise UserError(f"'{path}' is no .jsonl, .json, {_PRECOMP}, .csv or .tsv file")
    if split is None:
        raise UserError(f"'{path}' does not say its split: give --split")
    return import_csv(file, source=source or file.stem, split=split)


def _read_with_splits(file: Path, source: str) -> list[CaptionRecord]:
    if file.suffix.lower() == ".jsonl":
        return read_captions(file)
    if file.suffix.lower() == ".json":
        return import_rsicd(file, source=source or None, drop_empty=True)
    split = file.name.removesuffix(_PRECOMP)
    return import_precomp(file.parent, split, source=source or file.parent.name, drop_empty=True)


def _with_twins(records: list[CaptionRecord], args: argparse.Namespace) -> list[CaptionRecord]:
    if args.root is None:
        raise UserError("--sar-folder looks for the SAR twins: say with --root where it starts")
    twins = TwinFolder(Path(args.root) / args.sar_folder, "--sar-folder")
    return [
        place_images(record, args.sar_folder.replace("{split}", record.split), twins.find(record, "SAR twin").suffix)
        for record in records
    ]


def _agreement(record: CaptionRecord, args: argparse.Namespace) -> float:
    if record.optical_image is None:
        raise UserError(f"image '{record.image}' has no optical twin to compare with: give --sar-folder")
    root = Path(args.root)
    return score_files(root / record.optical_image, root / record.image, sar_unit=args.sar_unit)


def _term_check(args: argparse.Namespace):  # noqa: ANN202 - the terms, and a function of a record or None
    if args.sar_terms is None:
        return (), None
    if args.vocabulary is None or args.root is None:
        raise UserError("--sar-terms needs --vocabulary, which names the classes of the label maps, and --root")
    from mmovseg.data.io import read_label
    from mmovseg.data.vocabulary import get_vocabulary

    names = get_vocabulary(args.vocabulary).names
    terms = load_sar_terms()
    maps = TwinFolder(args.sar_terms, "--sar-terms")

    def check(record: CaptionRecord) -> dict[str, float]:
        labels = read_label(maps.find(record, "label map"))
        sar_db = read_sar_db(Path(args.root) / record.image, sar_unit=args.sar_unit)
        return verify_terms(sar_db, labels, names, terms=terms)

    return terms, check


def _kept_head(path: Path) -> str:
    """Return what people wrote above the mark in a file of pairs that is there already, else a heading."""
    if path.is_file():
        head, mark, _ = path.read_text(encoding="utf-8").partition(_MARK)
        if mark:
            return head + mark
    return f"# Captions before and after the rewriting rules\n\n{_MARK}"


def _pairs_text(
    records: list[CaptionRecord], rewriter: CaptionRewriter, accounts: dict[str, Account], args: argparse.Namespace
) -> str:
    pairs = sample_pairs(records, rewriter, count=args.num_pairs, seed=args.pairs_seed)
    return (
        f"\n\n{len(pairs)} random captions (seed {args.pairs_seed}) of those that the rules kept and changed.\n\n"
        f"{share_table(accounts)}\n\n{pairs_table(pairs)}\n"
    )
