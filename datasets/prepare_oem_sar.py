#!/usr/bin/env python
"""OpenEarthMap-SAR -> <output>/oem_sar/{train,test}/{sar,label}: land cover from SAR alone, 512 px.

The download is that of `prepare_oem.py` (record 14622048 of Zenodo, dfc25_track1_trainval.zip); optical images and its
val are not needed. `prepare_oem.py` makes the pairs of 1024 px; this script cuts SAR and labels of train in four.

    train/{sar_images,labels}/TrainArea_<n>.tif

Facts and where they are from:
- names and label values: see `prepare_oem.py`. 4,333 training images give 17,332 tiles, which are the paper's 13,865 +
  3,467; the authors' research release has 5,033 images (`--source` of that form: folders sar_images and
  pseudo_real_labels, real_labels or labels).
- the split: 80 % of the tiles are drawn, rounded down, which gives the paper's numbers; 80 % of the images would not.
  Tiles of one image are then in both, which does not matter to the benchmarks, as they train on one data set and test
  on another. `--split-by image` keeps images together. Which tiles the paper took is not published.

    datasets/prepare_oem_sar.py --source dfc25_track1_trainval.zip --workers 8
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.prepare import LabelCode, find_folder, open_download, pair_files
from mmovseg.data.prepare.sar_tiles import (
    SPLIT_UNITS,
    check_options,
    list_tiles,
    make_recipe,
    sar_parser,
    split_by_options,
    write_splits,
)
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import exit_on_user_error

_VOCABULARY = get_vocabulary("oem", "released")
CODE = LabelCode(
    ids={0: 255, 255: 255} | {id_ + 1: id_ for id_ in range(len(_VOCABULARY))},
    colors={(0, 0, 0): 255} | {color: id_ for id_, color in enumerate(_VOCABULARY.colors)},
)
_FOLDERS = {
    "sar": ("train/sar_images", "train/sar", "sar_images"),
    "label": ("train/labels", "train/label", "real_labels", "pseudo_real_labels", "labels"),
}


def find_images(roots: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Pair SAR and labels by their names.

    Raises:
        UserError: a folder is missing or empty, or a file has no partner.
    """
    return pair_files(
        {role: find_folder(roots, *names, what=f"the {role} rasters") for role, names in _FOLDERS.items()}
    )


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = sar_parser(__doc__)
    parser.add_argument("--split-by", choices=SPLIT_UNITS, default="tile", help="what is drawn (default: tile)")
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "oem_sar", check=check_options)
    splits = split_by_options(list_tiles(find_images(roots), tile_size=args.tile_size), args, unit=args.split_by)
    facts = {"script": "prepare_oem_sar", "split_by": args.split_by}
    print(write_splits(splits, root, make_recipe(args, CODE), args, made_by=facts))


if __name__ == "__main__":
    main()
