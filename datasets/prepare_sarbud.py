#!/usr/bin/env python
"""SARBuD 1.0 -> <output>/sarbud/{train,test}/{sar,label}: buildings in Gaofen-3 images, 512 px.

The download is linked in the README of CAESAR-Radi/SARBuD (Google Drive, Baidu): two archives of patches of 256 px
with equal names,

    images.zip, Labelimgs.zip

Facts and where they are from:
- Gaofen-3 fine strip II, 10 m, built-up areas of China, binary masks: Wu et al., "SARBuD1.0", National Remote Sensing
  Bulletin 26 (4), 2022, DOI 10.11834/jrs.20220296, and that README. Masks: white (255, or 1) building, black not.
- patches are enlarged to 512 px, as the CrossEarth-SAR paper says "cropped or resized to 512".
- the split: 80 % of the patches are drawn, 20,000 + 5,000 of 25,000 in the paper. Which ones is not published.
- not verified: folders inside the archives; both `images`, `Labelimgs` and files without a folder are found.
- HR-SARBuD is another data set.

    datasets/prepare_sarbud.py --source images.zip Labelimgs.zip --workers 8
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.prepare import LabelCode, find_folder, open_download, pair_files
from mmovseg.data.prepare.sar_tiles import (
    check_options,
    list_tiles,
    make_recipe,
    sar_parser,
    split_by_options,
    write_splits,
)
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import exit_on_user_error

_BUILDING, _OTHER = (get_vocabulary("sarbud").names.index(name) for name in ("building", "other"))
CODE = LabelCode(
    ids={0: _OTHER, 1: _BUILDING, 255: _BUILDING},
    colors={(0, 0, 0): _OTHER, (255, 255, 255): _BUILDING},
    tolerance=30,
)
_FOLDERS = {"sar": ("images", "images.zip"), "label": ("Labelimgs", "Labelimgs.zip", "labels")}


def find_images(roots: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Pair images and masks by their names.

    Raises:
        UserError: a folder is missing or empty, or a file has no partner.
    """
    return pair_files(
        {role: find_folder(roots, *names, what=f"the {role} rasters") for role, names in _FOLDERS.items()}
    )


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(sar_parser(__doc__), argv, "sarbud", check=check_options)
    splits = split_by_options(list_tiles(find_images(roots), tile_size=args.tile_size), args)
    print(write_splits(splits, root, make_recipe(args, CODE), args, made_by={"script": "prepare_sarbud"}))


if __name__ == "__main__":
    main()
