#!/usr/bin/env python
"""OpenEarthMap-SAR -> <output>/oem/<split>/{optical,optical_thin,optical_thick,sar,label}: land cover, 1024 px.

The download is record 14622048 of Zenodo (dfc25_track1_trainval.zip), as it is or unpacked; labels of its val and test
tiles followed in record 14950559 (dfc25_track1_val_labels.zip, dfc25_track1_test_labels.zip):

    train/{rgb_images,sar_images,labels}/TrainArea_<n>.tif    8 bit; RGB, one band, one band
    val/sar_images/..., test/sar_images/...                   SAR alone

Facts and where they are from:
- folders and names: scripts that read the download (StuLiu/dfc2025track1, data/copy_dataset_here;
  xiachengs/DFC2025-OEM-SAR-Baseline, source/dataset.py, which pairs files by equal names).
- label 0 unlabelled, 1 bareland, 2 rangeland, 3 developed space, 4 road, 5 tree, 6 water, 7 agriculture land, 8
  building, and the colours that are accepted too: class table of the baseline of cliffbb/OpenEarthMap-SAR. Ids here are
  one less and 0 becomes 255; the order is that of the vocabulary `oem`.
- 4,333 training tiles (labels by a model) and 490 test tiles (labelled by people): arXiv 2501.10891 and section 4.1.1
  of the MM-OVSeg paper.
- clouds: none in the download. Thin and thick ones are synthesised, the masks are kept in cloud_<kind> and
  shadow_<kind>. The paper uses SatelliteCloudGenerator, whose settings it does not state: `--cloud-generator
  satellite-cloud-generator` takes that package's presets, the default our own. Figures under either do not compare with
  published ones tile by tile; the authors' clouded images are in their release, which is read as it lies.
- not verified against the download: where the optical images of the 490 test tiles are. The contest gave out SAR alone.
  With optical, SAR and labels of val somewhere in the source (val/ or test/: rgb_images, sar_images, labels) or under
  `--val-folders` they are taken; otherwise `--holdout 0.1` draws a share of the training tiles as val, whose labels
  then are a model's.

    datasets/prepare_oem.py --source dfc25_track1_trainval.zip --holdout 0.1 --workers 8
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
    find_folder,
    find_optional,
    open_download,
    pair_files,
    pair_jobs,
    prepare_dataset,
    prepare_parser,
    split_stems,
)
from mmovseg.data.prepare.pairs import PairFiles
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError, exit_on_user_error

KINDS = ("thin", "thick")
_VOCABULARY = get_vocabulary("oem", "released")
CODE = LabelCode(
    ids={0: 255, 255: 255} | {id_ + 1: id_ for id_ in range(len(_VOCABULARY))},
    colors={(0, 0, 0): 255} | {color: id_ for id_, color in enumerate(_VOCABULARY.colors)},
)
_ROLES = {"optical": ("rgb_images", "rgb", "optical"), "sar": ("sar_images", "sar"), "label": ("labels", "label")}


def find_train(roots: Sequence[Path]) -> dict[str, PairFiles]:
    """Pair the training files.

    Raises:
        UserError: a folder is missing or empty, or a file has no partner.
    """
    return pair_files({role: find_folder(roots, *_paths("train", role), what=_what(role)) for role in _ROLES})


def find_val(roots: Sequence[Path]) -> dict[str, PairFiles] | None:
    """Pair the files of val, or of test, whichever has all three rasters; None if neither has.

    Raises:
        UserError: a folder is empty, or a file has no partner.
    """
    for split in ("val", "test"):
        folders = {role: find_optional(roots, *_paths(split, role), what=_what(role)) for role in _ROLES}
        found = {role: folder for role, folder in folders.items() if folder is not None}
        if len(found) == len(_ROLES):
            return pair_files(found)
    return None


def list_jobs(roots: Sequence[Path], recipe: PairRecipe, options: argparse.Namespace) -> list[TileJob]:
    """Return the tiles to make; options are those of the command line.

    Raises:
        UserError: train is not whole, val is neither in the source nor to be drawn, or a file has no partner.
    """
    train = find_train(roots)
    if options.holdout is not None:
        if not 0.0 < options.holdout < 1.0:
            raise UserError(f"--holdout must lie between 0 and 1, got {options.holdout}")
        stems = split_stems(train, train_share=1.0 - options.holdout, seed=options.seed)
        splits = {split: {stem: train[stem] for stem in names} for split, names in stems.items()}
    else:
        given = options.val_folders
        val = find_val(roots) if given is None else pair_files(dict(zip(_ROLES, given, strict=True)))
        if val is None:
            raise UserError(
                "the source has no folder val or test with rgb_images, sar_images and labels (the public download has "
                "no optical images of them); name them with --val-folders, or draw val from train with --holdout 0.1"
            )
        splits = {"train": train, "val": val}
    return [
        job for split, pairs in splits.items() for job in pair_jobs(pairs, split, recipe, tile_size=options.tile_size)
    ]


def _paths(split: str, role: str) -> list[str]:
    return [f"{split}/{name}" for name in _ROLES[role]]


def _what(role: str) -> str:
    return f"the {role} rasters"


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = prepare_parser(__doc__)
    val = parser.add_mutually_exclusive_group()
    val.add_argument(
        "--val-folders",
        nargs=3,
        type=Path,
        metavar=("OPTICAL", "SAR", "LABEL"),
        help="default: val/ or test/ of the source",
    )
    val.add_argument("--holdout", type=float, metavar="SHARE", help="draw this share of train as val, 0..1")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="clouds (default: both)")
    parser.add_argument(
        "--cloud-generator", choices=CLOUD_GENERATORS, default="own", help="of the clouds (default: own)"
    )
    parser.add_argument("--tile-size", type=int, metavar="PX", help="cut tiles of this size (default: as published)")
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "oem")
    recipe = PairRecipe(
        CODE,
        cloud_folders={kind: (f"optical_{kind}", f"cloud_{kind}", f"shadow_{kind}") for kind in args.kinds},
        cloud_generator=args.cloud_generator,
        seed=args.seed,
    )
    jobs = list_jobs(roots, recipe, args)
    made_by = {
        "script": "prepare_oem",
        "seed": args.seed,
        "holdout": args.holdout,
        "tile_size": args.tile_size,
        "clouds": args.cloud_generator,
    }
    counts = prepare_dataset(jobs, root, made_by=made_by, workers=args.workers)
    print(f"{root}: {counts.written} tiles written, {counts.finished_before} were there")


if __name__ == "__main__":
    main()
