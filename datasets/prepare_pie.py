#!/usr/bin/env python
"""PIE-RGB-SAR -> <output>/pie/<split>/{optical,optical_cloud,sar,label}: land cover of the Pearl River Delta.

The download is linked in the README of whu-pzhang/ASANet (Google Drive, Quark), as it is or unpacked:

    PIE-RGB-SAR/{rgb,sar,label}/<name>.tif    256 x 256; label: one band of class ids
    PIE-RGB-SAR/train.txt, val.txt            one name a line, without extension

Facts and where they are from:
- folders, extensions, names of the lists: ASANet's config pie-rgb-sar_256x256.py and its README.
- label ids 0 background, 1 city, 2 road, 3 water, 4 forest, 5 farmland, and the colours that are accepted too: the
  class table in ASANet's src/dataset.py. The order is that of the vocabulary `pie`, so ids stay.
- 2,433 and 2,432 pairs: section 4.1.1 of the MM-OVSeg paper.
- not verified against the download: whether the lists lie in the archive (`--train-list`, `--val-list` otherwise), and
  whether it has cloudy images. MM-OVSeg says that a cloudy track is provided, ASANet reads `rgb` only. A folder
  rgb_clouds (or --cloudy-folder) is taken as `optical_cloud`; without one, clouds of kind `varied` are synthesised and
  their masks kept in `cloud` and `shadow`. Figures under such clouds do not compare with published ones.

A download that is split into folders (train/rgb, val/rgb, ...) is taken as split.

    datasets/prepare_pie.py --source PIE-RGB-SAR.zip --workers 8
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.prepare import (
    CLOUD_GENERATORS,
    LabelCode,
    PairRecipe,
    TileJob,
    choose_split,
    find_folder,
    find_optional,
    open_download,
    pair_files,
    pair_jobs,
    prepare_dataset,
    prepare_parser,
)
from mmovseg.data.prepare.pairs import PairFiles
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import exit_on_user_error

TILE_PX = 256
_VOCABULARY = get_vocabulary("pie", "released")
CODE = LabelCode(
    ids={id_: id_ for id_ in range(len(_VOCABULARY))} | {255: 255},
    colors={color: id_ for id_, color in enumerate(_VOCABULARY.colors)},
)
_ROLES = {"optical": ("rgb", "optical"), "sar": ("sar",), "label": ("label", "labels")}
_CLOUDY = ("rgb_clouds", "rgb_cloud", "cloud_rgb", "rgb-clouds")
_HINT = "they come with the download, or with whu-pzhang/ASANet"


def find_pairs(roots: Sequence[Path], split: str, cloudy_folder: str | None) -> dict[str, PairFiles]:
    """Pair the files of a split's folder, or of all where `split` is empty.

    Raises:
        UserError: a folder is missing or empty, or a file has no partner.
    """
    start, of = (f"{split}/", f" of {split}") if split else ("", "")
    folders = {
        role: find_folder(roots, *(start + name for name in names), what=f"the {role} rasters{of}")
        for role, names in _ROLES.items()
    }
    candidates = (cloudy_folder,) if cloudy_folder else _CLOUDY
    cloudy = find_optional(roots, *(start + name for name in candidates), what="the cloudy optical rasters")
    if cloudy is None and cloudy_folder:
        cloudy = find_folder(roots, start + cloudy_folder, what="the cloudy optical rasters")  # says what is missing
    return pair_files(folders if cloudy is None else folders | {"clouded": cloudy})


def list_jobs(roots: Sequence[Path], recipe: PairRecipe, options: argparse.Namespace) -> list[TileJob]:
    """Return the tiles to make; options are those of the command line.

    Raises:
        UserError: see `find_pairs` and `choose_split`.
    """
    if find_optional(roots, "train/rgb", "train/optical", what="the optical rasters of train") is not None:
        splits = {split: find_pairs(roots, split, options.cloudy_folder) for split in ("train", "val")}
    else:
        pairs = find_pairs(roots, "", options.cloudy_folder)
        lists = {
            "train": options.train_list or find_optional(roots, "train.txt", what="the list of train", file=True),
            "val": options.val_list or find_optional(roots, "val.txt", "test.txt", what="the list of val", file=True),
        }
        stems = choose_split(pairs, lists, random_split=options.random_split, seed=options.seed, hint=_HINT)
        splits = {split: {stem: pairs[stem] for stem in names} for split, names in stems.items()}
    return [job for split, pairs in splits.items() for job in pair_jobs(pairs, split, recipe, tile_size=TILE_PX)]


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = prepare_parser(__doc__)
    parser.add_argument("--train-list", type=Path, metavar="FILE", help="default: train.txt of the download")
    parser.add_argument("--val-list", type=Path, metavar="FILE", help="default: val.txt of the download")
    parser.add_argument("--random-split", action="store_true", help="draw two halves instead of reading lists")
    parser.add_argument(
        "--cloudy-folder",
        metavar="NAME",
        help=f"folder of cloudy images in the download (default: {_CLOUDY[0]}, if any)",
    )
    parser.add_argument(
        "--cloud-generator", choices=CLOUD_GENERATORS, default="own", help="of clouds to synthesise (default: own)"
    )
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "pie")
    recipe = PairRecipe(
        CODE,
        cloud_folders={"varied": ("optical_cloud", "cloud", "shadow")},
        cloud_generator=args.cloud_generator,
        seed=args.seed,
    )
    jobs = list_jobs(roots, recipe, args)
    synthesised = sum("cloud" in job.folders for job in jobs)
    made_by = {
        "script": "prepare_pie",
        "seed": args.seed,
        "split": "random" if args.random_split else "as published",
        "clouds": args.cloud_generator if synthesised else "of the download",
    }
    counts = prepare_dataset(jobs, root, made_by=made_by, workers=args.workers)
    print(f"{root}: {counts.written} tiles written, {counts.finished_before} were there, clouds: {made_by['clouds']}")


if __name__ == "__main__":
    main()
