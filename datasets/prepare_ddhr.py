#!/usr/bin/env python
"""DDHR -> <output>/ddhr_sk/{train,val} and <output>/ddhr_ch/val, each {optical_cloud,sar,label}: land cover, 256 px.

The download is linked in the README of XD-MG/DDHRNet (Google Drive, Baidu), as it is or unpacked. Of its regions,
Pohang in South Korea becomes `ddhr_sk` and Xi'an in China `ddhr_ch`:

    korea/256_cloud/{GF2,GF3}/<n>.jpg    optical under clouds; SAR
    korea/256_cloud/label/<n>.png        class ids, stored with a palette

Facts and where they are from:
- folders and extensions: the lists trainM_list.txt and valM_list.txt in DDHRNet_Code/DATA of XD-MG/DDHRNet, whose lines
  name the three files of a pair. They are the split (3,087 and 3,086 pairs as section 4.1.1 of the MM-OVSeg paper says;
  the length of the files fits); give them with --train-list and --val-list, or put them into the source.
- GF2 of `256_cloud` is already under clouds, made by the publishers with GIMP (MM-OVSeg paper), so that nothing is
  synthesised. For a cloud-free GF2 say `--optical clear`: it becomes `optical`, `varied` clouds make `optical_cloud`.
- Korean label ids 0 building (city), 1 road, 2 greenery (forest), 3 water, 4 farmland: the class table in
  src/dataset.py of whu-pzhang/ASANet; the order is that of the vocabulary `ddhr_sk`.
- not verified against the download: the folder of Xi'an (`--ch-folder`; xian, xi'an and china are tried), the size of
  its tiles (larger ones are cut to 256 px, smaller ones stay), and its label ids. They are taken to be in the order of
  the vocabulary `ddhr_ch` (city, road, farmland, forest, water), since the MM-OVSeg authors list this other order for
  Xi'an alone; --ch-label-order gives another, for example that of the Korean labels.

    datasets/prepare_ddhr.py --source DDHR.zip --train-list trainM_list.txt --val-list valM_list.txt --workers 8
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmovseg.data.prepare import (
    CLOUD_GENERATORS,
    LabelCode,
    PairRecipe,
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
from mmovseg.errors import UserError, exit_on_user_error

TILE_PX = 256
REGIONS = {"sk": ("korea", "pohang"), "ch": ("xian", "xi'an", "xi’an", "china")}
"""Region -> folders that it may lie in; case is ignored."""

_INNER = ("256_cloud", "256", "")
_ROLES = {"optical": "GF2", "sar": "GF3", "label": "label"}
_HINT = "trainM_list.txt and valM_list.txt of XD-MG/DDHRNet"


def label_code(vocabulary_name: str, order: str | None = None) -> LabelCode:
    """Return the code of labels that number classes in an order: that of the vocabulary, or names given.

    Raises:
        UserError: `order` does not name each class of the vocabulary once.
    """
    vocabulary = get_vocabulary(vocabulary_name, "released")
    names = vocabulary.names if order is None else [name.strip() for name in order.split(",")]
    if sorted(names) != sorted(vocabulary.names):
        raise UserError(f"--ch-label-order must name each of {', '.join(vocabulary.names)} once, got '{order}'")
    ids = {stored: vocabulary.names.index(name) for stored, name in enumerate(names)}
    colors = {color: id_ for id_, color in enumerate(vocabulary.colors)}
    return LabelCode(ids=ids | {255: 255}, colors=colors)


def find_pairs(roots: Sequence[Path], region: str, folder: str | None, optical: str) -> dict[str, PairFiles]:
    """Pair the files of a region; empty if the source does not have it and no folder was named.

    Raises:
        UserError: the folder named does not exist, a part is missing or empty, or a file has no partner.
    """
    names = (folder,) if folder else REGIONS[region]
    inner = ("",) if folder else _INNER
    candidates = [f"{name}/{part}/GF2".replace("//", "/") for part in inner for name in names]
    found = find_optional(roots, *candidates, what=f"the optical rasters of {names[0]}")
    if found is None and folder:
        found = find_folder(roots, *candidates, what=f"the optical rasters of {folder}")  # says what is missing
    if found is None:
        return {}
    role = "clouded" if optical == "clouded" else "optical"
    return pair_files({(role if key == "optical" else key): found.parent / name for key, name in _ROLES.items()})


def split_pairs(
    pairs: Mapping[str, PairFiles], region: str, roots: Sequence[Path], options: argparse.Namespace
) -> dict[str, dict[str, PairFiles]]:
    """Return split -> stem -> files; Xi'an is for testing as a whole.

    Raises:
        UserError: see `choose_split`.
    """
    if region == "ch":
        return {"val": dict(pairs)}
    train, val = (
        given or find_optional(roots, f"{split}M_list.txt", f"{split}.txt", what=f"the list of {split}", file=True)
        for split, given in (("train", options.train_list), ("val", options.val_list))
    )
    lists = {"train": train, "val": val}
    stems = choose_split(pairs, lists, random_split=options.random_split, seed=options.seed, hint=_HINT)
    return {split: {stem: pairs[stem] for stem in names} for split, names in stems.items()}


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = prepare_parser(__doc__)
    parser.add_argument(
        "--regions", nargs="+", choices=list(REGIONS), metavar="sk|ch", help="default: those that the source has"
    )
    parser.add_argument("--sk-folder", metavar="PATH", help="folder with GF2, GF3, label of Pohang in the source")
    parser.add_argument("--ch-folder", metavar="PATH", help="the same of Xi'an")
    parser.add_argument("--train-list", type=Path, metavar="FILE", help="default: trainM_list.txt of the source")
    parser.add_argument("--val-list", type=Path, metavar="FILE", help="default: valM_list.txt of the source")
    parser.add_argument("--random-split", action="store_true", help="draw two halves instead of reading lists")
    parser.add_argument(
        "--optical", choices=("clouded", "clear"), default="clouded", help="what GF2 shows (default: clouded)"
    )
    parser.add_argument(
        "--ch-label-order", metavar="NAMES", help="classes of the ids 0, 1, ... of Xi'an, separated by commas"
    )
    parser.add_argument(
        "--cloud-generator", choices=CLOUD_GENERATORS, default="own", help="for --optical clear (default: own)"
    )
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, _, roots = open_download(argument_parser(), argv, "", unpacked=".unpacked_ddhr")
    recipe = PairRecipe(
        label_code("ddhr_sk"),
        cloud_folders={"varied": ("optical_cloud", "cloud", "shadow")},
        cloud_generator=args.cloud_generator,
        seed=args.seed,
    )
    recipes = {"sk": recipe, "ch": replace(recipe, code=label_code("ddhr_ch", args.ch_label_order))}
    done = []
    for region in args.regions or REGIONS:
        pairs = find_pairs(roots, region, getattr(args, f"{region}_folder"), args.optical)
        if not pairs and args.regions:
            raise UserError(f"the source has no folder {' or '.join(REGIONS[region])} with GF2; use --{region}-folder")
        if not pairs:
            print(f"ddhr_{region}: not in the source (looked for {', '.join(REGIONS[region])})")
            continue
        splits = split_pairs(pairs, region, roots, args)
        jobs = [
            job for split, part in splits.items() for job in pair_jobs(part, split, recipes[region], tile_size=TILE_PX)
        ]
        root = args.output / f"ddhr_{region}"
        made_by = {
            "script": "prepare_ddhr",
            "seed": args.seed,
            "split": "random" if args.random_split and region == "sk" else "as published",
            "clouds": args.cloud_generator if args.optical == "clear" else "of the download",
            "label_order": args.ch_label_order if region == "ch" else None,
        }
        counts = prepare_dataset(jobs, root, made_by=made_by, workers=args.workers)
        print(f"{root}: {counts.written} tiles written, {counts.finished_before} were there")
        done.append(region)
    if not done:
        raise UserError(
            "the source has neither Pohang (korea) nor Xi'an with a folder GF2; see --sk-folder, --ch-folder"
        )


if __name__ == "__main__":
    main()
