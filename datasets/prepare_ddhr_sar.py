#!/usr/bin/env python
"""DDHR-SK -> <output>/{ddhr_korea,ddhr_shandong}/{train,test}/{sar,label}: land cover from SAR alone, 512 px.

SK stands for Shandong in China and Korea (Pohang). The download is linked in the README of XD-MG/DDHRNet (Google Drive,
Baidu), as it is or unpacked; of each region only SAR and labels are read:

    korea/256_cloud/{GF3,label}, shandong/256_cloud/{GF3,label}    <n>.jpg, <n>.png; 256_clear, 256 and no folder too

Facts and where they are from:
- Gaofen-3, 1 m, tiles of 256 px, enlarged to 512 here, as the CrossEarth-SAR paper says "cropped or resized to 512".
- label ids 0 building, 1 road, 2 greenery, 3 water, 4 farmland: the class table of whu-pzhang/ASANet; 255 has no label
  in the publishers' own training. It is the sixth class "other" here, since the benchmarks have it and the paper's maps
  draw it as background; `--unlabelled ignore` ignores it.
- the split: 80 % are drawn, rounded up; the paper has 4,916 + 1,229 and 6,265 + 1,566. The publishers' lists halve the
  Korean part and are another split. The lists name 6,173 Korean tiles, the paper uses 6,145, nobody says which.
- not verified: the folder of Shandong (`--shandong-folder`), and that its labels number the classes like the Korean
  ones (`--shandong-label-order` gives another order); Xi'an is another region, and part of the paper's pretraining.

    datasets/prepare_ddhr_sar.py --source DDHR.zip --workers 8
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.prepare import LabelCode, find_folder, find_optional, open_download, pair_files
from mmovseg.data.prepare.sar_tiles import (
    check_options,
    list_tiles,
    make_recipe,
    sar_parser,
    split_by_options,
    write_splits,
)
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError, exit_on_user_error

REGIONS = {"korea": ("korea", "pohang"), "shandong": ("shandong",)}
"""Region -> folders that it may lie in; case is ignored."""

KOREAN_ORDER = ("building", "road", "greenery", "water", "farmland")
_INNER = ("256_cloud", "256_clear", "256", "")
_VOCABULARY = get_vocabulary("ddhr_sar")


def label_code(order: str | None, unlabelled: str) -> LabelCode:
    """Return the code of labels that number the five classes in an order, 255 being "other" or ignored.

    Raises:
        UserError: `order` does not name each of the five classes once.
    """
    names = KOREAN_ORDER if order is None else tuple(name.strip() for name in order.split(","))
    if sorted(names) != sorted(KOREAN_ORDER):
        raise UserError(f"a label order must name each of {', '.join(KOREAN_ORDER)} once, got '{order}'")
    ids = {number: _VOCABULARY.names.index(name) for number, name in enumerate(names)}
    return LabelCode(ids=ids | {255: _VOCABULARY.names.index("other") if unlabelled == "other" else 255})


def find_region(roots: Sequence[Path], region: str, folder: str | None) -> dict[str, dict[str, Path]]:
    """Pair SAR and labels of a region; empty if the source does not have it and no folder was named.

    Raises:
        UserError: the folder named does not exist, a part is missing or empty, or a file has no partner.
    """
    names, inner = ((folder,), ("",)) if folder else (REGIONS[region], _INNER)
    candidates = [f"{name}/{part}/GF3".replace("//", "/") for part in inner for name in names]
    if folder:
        found: Path | None = find_folder(roots, *candidates, what=f"the SAR rasters of {region}")
    else:
        found = find_optional(roots, *candidates, what=f"the SAR rasters of {region}")
    return {} if found is None else pair_files({"sar": found, "label": found.parent / "label"})


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = sar_parser(__doc__)
    for region in REGIONS:
        parser.add_argument(f"--{region}-folder", metavar="PATH", help="folder with GF3 and label of it in the source")
        parser.add_argument(
            f"--{region}-label-order",
            metavar="NAMES",
            help=f"classes of the ids 0, 1, ... by commas (default: {', '.join(KOREAN_ORDER)})",
        )
    parser.add_argument("--regions", nargs="+", choices=list(REGIONS), help="default: those that the source has")
    parser.add_argument(
        "--unlabelled", choices=("other", "ignore"), default="other", help="what 255 is (default: other)"
    )
    return parser


def check_regions(args: argparse.Namespace) -> None:
    """Refuse options that make no sense, lists of more than one region too."""
    check_options(args)
    if args.train_list is not None and len(args.regions or REGIONS) > 1:
        raise UserError("--train-list and --test-list are of one region; say which with --regions")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, _, roots = open_download(argument_parser(), argv, "", check=check_regions, unpacked=".unpacked_ddhr")
    done = False
    for region in args.regions or REGIONS:
        pairs = find_region(roots, region, getattr(args, f"{region}_folder"))
        if not pairs:
            looked = f"looked for {', '.join(REGIONS[region])} with GF3; see --{region}-folder"
            if args.regions:
                raise UserError(f"the source has no region {region} ({looked})")
            print(f"ddhr_{region}: not in the source ({looked})")
            continue
        order = getattr(args, f"{region}_label_order")
        splits = split_by_options(list_tiles(pairs, tile_size=args.tile_size), args, rounding="up")
        facts = {"script": "prepare_ddhr_sar", "label_order": order, "unlabelled": args.unlabelled}
        recipe = make_recipe(args, label_code(order, args.unlabelled))
        print(write_splits(splits, args.output / f"ddhr_{region}", recipe, args, made_by=facts))
        done = True
    if not done:
        raise UserError("the source has neither Korea nor Shandong with a folder GF3; see --korea-folder")


if __name__ == "__main__":
    main()
