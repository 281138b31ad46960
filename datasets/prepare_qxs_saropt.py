#!/usr/bin/env python
"""QXS-SAROPT -> <output>/qxs_saropt/{train,val,test}/{optical,sar}: pairs of Gaofen-3 and optical images, 1 m, 256 px.

The download is linked in the README of yaoxu008/QXS-SAROPT (a form, then Baidu):

    QXSLAB_SAROPT/opt_256_oc_0.2/<n>.png, QXSLAB_SAROPT/sar_256_oc_0.2/<n>.png     20,000 pairs; folders opt, sar too

Facts and where they are from:
- Gaofen-3 spotlight, 1 m, and Google Earth of San Diego, Shanghai and Qingdao: Huang et al., arXiv 2103.08259. Folders:
  public code that reads it.
- no split is published, nor which city a pair is of, and neighbours overlap by a fifth (as the folders' names say).
  Near numbers show one landscape in one light (seen on 14 real pairs, numbers 1283 to 19996), so the split is drawn by
  blocks of consecutive numbers: only pairs at the edges of a block have neighbours in another split. `--block 1` draws
  pairs, as others did. `--train-list`, `--val-list`, `--test-list` take lists instead.

    datasets/prepare_qxs_saropt.py --source QXSLAB_SAROPT.zip --workers 4
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmovseg.data.prepare import find_folder, open_download, pair_files
from mmovseg.data.prepare.pairs import split_by_lists
from mmovseg.data.prepare.splits import split_by_share
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.sartext.data.prepare import prepare_pairs, text_set_parser

_FOLDERS = {"optical": ("opt_256_oc_0.2", "opt"), "sar": ("sar_256_oc_0.2", "sar")}
_LISTS = ("train", "val", "test")


def draw_split(
    stems: Iterable[str], *, block: int, val_share: float, test_share: float, seed: int
) -> dict[str, list[str]]:
    """Draw whole blocks of numbers for test, then for val.

    Args:
        stems: numbers as text; another name is a block of its own.
        block: consecutive numbers that stay together.
        val_share: of the blocks, 0..1.
        test_share: of the blocks, 0..1.
        seed: of the draw.
    """
    blocks: dict[str, list[str]] = {}
    for stem in stems:
        blocks.setdefault(str(int(stem) // block) if stem.isdecimal() else stem, []).append(stem)
    rest, test = split_by_share(blocks, train_share=1.0 - test_share, rounding="up", seed=seed).values()
    # of what test left, so that val has its share of the whole
    kept = 1.0 - val_share / (1.0 - test_share)
    train, val = split_by_share(rest, train_share=kept, rounding="up", seed=seed + 1).values()
    parts = {"train": train, "val": val, "test": test}
    return {split: sorted(stem for name in names for stem in blocks[name]) for split, names in parts.items() if names}


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = text_set_parser(__doc__, draws_val=False)
    parser.add_argument("--block", type=int, default=100, metavar="N", help="numbers drawn together (default: 100)")
    for split in ("val", "test"):
        parser.add_argument(
            f"--{split}-share", type=float, default=0.1, metavar="SHARE", help=f"of the blocks, {split} (default: 0.1)"
        )
    for split in _LISTS:
        parser.add_argument(f"--{split}-list", type=Path, metavar="FILE", help=f"names of {split}, one a line")
    return parser


def check_shares(args: argparse.Namespace) -> None:
    """Refuse options that make no sense."""
    if args.block < 1:
        raise UserError(f"--block must be at least 1, got {args.block}")
    if min(args.val_share, args.test_share) < 0.0 or args.val_share + args.test_share >= 1.0:
        raise UserError(
            f"--val-share and --test-share must be shares that leave some for train, got {args.val_share} and "
            f"{args.test_share}"
        )


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "qxs_saropt", check=check_shares)
    folders = {role: find_folder(roots, *names, what=f"the {role} images") for role, names in _FOLDERS.items()}
    pairs = pair_files(folders)
    lists = {split: path for split in _LISTS if (path := getattr(args, f"{split}_list")) is not None}
    if lists:
        stems, facts = split_by_lists(pairs, lists), {"split": "lists"}
    else:
        shares = {"val_share": args.val_share, "test_share": args.test_share}
        stems = draw_split(pairs, block=args.block, seed=args.seed, **shares)
        facts = {"split": "drawn", "block": args.block, **shares}
    splits = {split: {stem: pairs[stem] for stem in names} for split, names in stems.items()}
    print(prepare_pairs("qxs_saropt", args, root, splits, facts=facts))


if __name__ == "__main__":
    main()
