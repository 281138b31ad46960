#!/usr/bin/env python
"""OSdataset -> <output>/osdataset{256,512}/{train,val,test}/{optical,sar}: pairs of Gaofen-3 and optical images, 1 m.

The download is linked on the page of the data set (Xiang et al., see below), one folder a size:

    256/{train,val,test}/{opt<n>,sar<n>}.png      10,692 pairs of 256 px
    512/{train,val,test}/{opt<n>,sar<n>}.png      2,673 pairs of 512 px

Facts and where they are from:
- Gaofen-3, 1 m, registered with optical images of several cities of the world: Xiang et al., "Automatic Registration of
  Optical and SAR Images via Improved Phase Congruency Model", IEEE JSTARS 13, 2020. Numbers of pairs: third parties.
- names of the files and the folder `train`: public code that reads it. The split is published with the folders.
- not verified: how the folders of the sizes are called; `--folder-256` and `--folder-512` name them. `val` may also be
  `valid`. Folders `opt` and `sar` with equal names in a split are taken too.

    datasets/prepare_osdataset.py --source OSdataset.zip --workers 4
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.prepare import find_folder, find_optional, index_by_stem, open_download, pair_files
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.sartext.data.prepare import PairFiles, prepare_pairs, text_set_parser

SIZES = (256, 512)
_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_NAME = re.compile(r"(opt|sar)_?(\d+)", re.IGNORECASE)
_ROLES = {"opt": "optical", "sar": "sar"}


def find_size(roots: Sequence[Path], size: int, folder: str | None) -> Path | None:
    """Return the folder of a size, the parent of ``train``; None if the source has none and no folder was named.

    Raises:
        UserError: the folder named does not exist.
    """
    if folder is not None:
        return find_folder(roots, f"{folder}/train", what=f"the pairs of {size} px").parent
    names = (f"{size}/train", f"OSdataset_{size}/train", f"OSdataset{size}/train")
    found = find_optional(roots, *names, what=f"the pairs of {size} px")
    return None if found is None else found.parent


def list_pairs(folder: Path) -> dict[str, PairFiles]:
    """Pair the files of a split.

    Raises:
        UserError: a name is of another form, or a file has no partner.
    """
    if (folder / "opt").is_dir() and (folder / "sar").is_dir():
        return dict(pair_files({"optical": folder / "opt", "sar": folder / "sar"}))
    pairs: dict[str, dict[str, Path]] = {}
    for stem, path in index_by_stem(folder).items():
        found = _NAME.fullmatch(stem)
        if found is None:
            raise UserError(f"image '{path}' is called neither opt<number> nor sar<number>")
        pairs.setdefault(found[2], {})[_ROLES[found[1].lower()]] = path
    for number, files in pairs.items():
        missing = [name for name, role in _ROLES.items() if role not in files]
        if missing:
            raise UserError(f"image '{next(iter(files.values()))}' has no partner {missing[0]}{number}")
    return dict(sorted(pairs.items(), key=lambda item: int(item[0])))


def list_splits(root: Path) -> dict[str, dict[str, PairFiles]]:
    """Return split -> stem -> files of a size; a split that the source lacks is left out."""
    splits = {}
    for split, names in _SPLITS.items():
        folder = next((root / name for name in names if (root / name).is_dir()), None)
        if folder is not None:
            splits[split] = list_pairs(folder)
    return splits


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = text_set_parser(__doc__, draws_val=False)
    for size in SIZES:
        parser.add_argument(f"--folder-{size}", metavar="PATH", help=f"folder of the pairs of {size} px in the source")
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "", unpacked=".unpacked_osdataset")
    done = False
    for size in SIZES:
        folder = find_size(roots, size, getattr(args, f"folder_{size}"))
        if folder is None:
            print(f"osdataset{size}: not in the source (no folder {size}/train); see --folder-{size}")
            continue
        print(prepare_pairs(f"osdataset{size}", args, root / f"osdataset{size}", list_splits(folder)))
        done = True
    if not done:
        raise UserError("the source has neither 256/train nor 512/train; see --folder-256, --folder-512")


if __name__ == "__main__":
    main()
