#!/usr/bin/env python
"""WHU-OPT-SAR -> <output>/whu_opt_sar/{train,test}/{sar,label}: land use from Gaofen-3 over Hubei, 5 m, 512 px.

The download is linked in the README of AmberHen/WHU-OPT-SAR-dataset (Google Drive, Baidu); optical images are not read:

    sar/<sheet>.tif, lbl/<sheet>.tif    100 scenes of 5556 x 3704 px, for example NH49E001013.tif

Facts and where they are from:
- label values 0 background, 10 farmland, 20 city, 30 village, 40 water, 50 forest, 60 road, 70 others; size and number
  of scenes: that README. Background is ignored.
- the split: "The division of the dataset.txt" of that repository names 80 training and 20 test scenes. Give it with
  `--division`, or put it into the source; without it `--random-split` draws 80 % of the scenes.
- scenes are cut into 11 x 8 tiles, the last row and column moved back into the scene: 88 a scene, the paper's 7,040 and
  1,760.
- not verified: that SAR is of 8 bits; if not, `--sar-range` says what is black and white.

    datasets/prepare_whu_opt_sar.py --source WHU-OPT-SAR.zip --division "The division of the dataset.txt" --workers 8
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.prepare import LabelCode, find_folder, find_optional, open_download, pair_files
from mmovseg.data.prepare.sar_tiles import (
    SarTile,
    check_options,
    list_tiles,
    make_recipe,
    sar_parser,
    split_by_options,
    split_tiles_by_lists,
    write_splits,
)
from mmovseg.data.text import read_text
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError, exit_on_user_error

STORED = {10: "farmland", 20: "city", 30: "village", 40: "water", 50: "forest", 60: "road", 70: "others"}
CODE = LabelCode(
    ids={0: 255, 255: 255} | {value: get_vocabulary("whu_opt_sar").names.index(name) for value, name in STORED.items()}
)
DIVISION = "The division of the dataset.txt"
_FOLDERS = {"sar": ("sar",), "label": ("lbl", "label")}


def read_division(path: Path) -> dict[str, list[str]]:
    """Read the publishers' split: a line ``train:``, names, a line ``test:``, names.

    Raises:
        UserError: it cannot be read, a name stands before the first heading, or a part is missing.
    """
    lines = read_text(path, "division").splitlines()
    parts: dict[str, list[str]] = {}
    current = None
    for line in (line.strip() for line in lines):
        if line.rstrip(":").lower() in ("train", "test"):
            current = parts.setdefault(line.rstrip(":").lower(), [])
        elif line and current is None:
            raise UserError(f"division '{path}' has '{line}' before a line 'train:' or 'test:'")
        elif line and current is not None:
            current.append(Path(line).stem)
    if set(parts) != {"train", "test"}:
        raise UserError(f"division '{path}' needs the parts 'train:' and 'test:', it has: {', '.join(parts) or 'none'}")
    return parts


def split_scenes(
    tiles: Sequence[SarTile], roots: Sequence[Path], args: argparse.Namespace
) -> tuple[dict[str, list[SarTile]], str]:
    """Return the split and how it was made.

    Raises:
        UserError: neither lists nor the division were found and no random split was asked for, or they do not fit.
    """
    if args.train_list is not None:
        return split_by_options(tiles, args), "lists"
    if args.random_split:
        return split_by_options(tiles, args), "drawn"
    division = args.division or find_optional(roots, DIVISION, what="the division", file=True)
    if division is None:
        raise UserError(
            f"the source has no file '{DIVISION}'; name it with --division (it is in the repository "
            "AmberHen/WHU-OPT-SAR-dataset), or draw a split of your own with --random-split"
        )
    return split_tiles_by_lists(tiles, read_division(division)), "as published"


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = sar_parser(__doc__)
    parser.add_argument("--division", type=Path, metavar="FILE", help=f"default: '{DIVISION}' of the source")
    parser.add_argument("--random-split", action="store_true", help="draw scenes instead of reading the division")
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "whu_opt_sar", check=check_options)
    folders = {role: find_folder(roots, *names, what=f"the {role} rasters") for role, names in _FOLDERS.items()}
    splits, how = split_scenes(list_tiles(pair_files(folders), tile_size=args.tile_size), roots, args)
    facts = {"script": "prepare_whu_opt_sar", "split": how}
    print(write_splits(splits, root, make_recipe(args, CODE), args, made_by=facts))


if __name__ == "__main__":
    main()
