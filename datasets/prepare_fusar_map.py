#!/usr/bin/env python
"""FUSAR-Map -> <output>/fusar_map/{train,test}/{sar,label}: land cover from Gaofen-3, 1 m, 512 px.

The download is linked in the README of fudanxu/FUSAR-Map:

    SAR_1024/<city>_<scene>_<area>_<row>_<column>_SAR_<n>.tif    610 images of 1024 px, 8 bit
    LAB_1024/<the same with LAB>.tif                             RGB labels

Facts and where they are from:
- folders, names, colours, 610 triplets: the description in that repository (Shi et al., "Object-level Semantic
  Segmentation on The High-Resolution Gaofen-3 FUSAR-Map Dataset"). Red building, green vegetation, blue water, yellow
  road, black other. The authors' code merges roads into other; here they stay, since the benchmarks have them.
- images are cut in four; 80 % of the images are drawn for training: 488 x 4 = 1,952 and 122 x 4 = 488 tiles, the
  numbers of the CrossEarth-SAR paper. Which images it took is not published.
- not verified: that labels hold exact colours. They are matched to the nearest within `--tolerance` (30).

    datasets/prepare_fusar_map.py --source FUSAR-Map.zip --workers 8
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.prepare import LabelCode, find_folder, index_by_stem, open_download
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

_VOCABULARY = get_vocabulary("fusar_map")
_FOLDERS = {"sar": ("SAR_1024", "SAR"), "label": ("LAB_1024", "LAB")}
_KIND = re.compile(r"_(?:SAR|LAB)(?=_|$)", re.IGNORECASE)


def find_images(roots: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Pair the files by their names without the part that says what they are.

    Raises:
        UserError: a folder is missing or empty, or a file has no partner.
    """
    images: dict[str, dict[str, Path]] = {}
    for role, names in _FOLDERS.items():
        folder = find_folder(roots, *names, what=f"the {role} rasters")
        for stem, path in index_by_stem(folder).items():
            images.setdefault(_KIND.sub("", stem), {})[role] = path
    for name, files in images.items():
        if len(files) < len(_FOLDERS):
            missing = next(role for role in _FOLDERS if role not in files)
            raise UserError(f"'{next(iter(files.values()))}' has no partner: no {missing} raster of '{name}'")
    return dict(sorted(images.items()))


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = sar_parser(__doc__)
    parser.add_argument(
        "--tolerance", type=int, default=30, metavar="N", help="largest summed difference of a colour (default: 30)"
    )
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "fusar_map", check=check_options)
    code = LabelCode(colors={color: id_ for id_, color in enumerate(_VOCABULARY.colors)}, tolerance=args.tolerance)
    tiles = list_tiles(find_images(roots), tile_size=args.tile_size)
    splits = split_by_options(tiles, args, rename=lambda name: _KIND.sub("", name))
    facts = {"script": "prepare_fusar_map", "tolerance": args.tolerance}
    print(write_splits(splits, root, make_recipe(args, code), args, made_by=facts))


if __name__ == "__main__":
    main()
