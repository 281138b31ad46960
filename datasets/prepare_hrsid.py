#!/usr/bin/env python
"""HRSID -> <output>/hrsid/{train,val,test}/sar and <split>.json: ships in SAR images of 800 px, boxes and outlines.

The download is linked in the README of chaozhong2010/HRSID (Google Drive, Baidu), a rar archive: unpack it first.

    HRSID_JPG/JPEGImages/<scene>_<y0>_<y1>_<x0>_<x1>.jpg          5,604 images
    HRSID_JPG/annotations/{train2017,test2017}.json               COCO
    HRSID_JPG/inshore_offshore/{inshore,offshore}.json            which images show a shore (newer archives)

Facts and where they are from:
- 5,604 images, 16,951 ships, 0.5 to 3 m: Wei et al., "HRSID", IEEE Access 8, 2020. Files, names, 3,642 + 1,962 images:
  public code that reads it.
- the split is published, and cuts through scenes: crops of one scene (first word of the name) are in train and in test.
  `--split scene` draws one by scene instead, 65 % train as published; its figures do not compare.
- inshore and offshore become `scene` of an image in the JSON; captions say so.
- pixels and boxes are as published; images have three equal bands, which reading does not mind.

    datasets/prepare_hrsid.py --source HRSID_JPG
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.datasets.coco_boxes import read_coco
from mmovseg.data.prepare import find_folder, find_optional, open_download
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.sartext.data.prepare import BoxFiles, check_val_share, prepare_boxes, text_set_parser
from mmovseg.projects.sartext.data.sets import SHORES, Shore


def find_files(roots: Sequence[Path]) -> dict[str, BoxFiles]:
    """Find the boxes of both splits and their images.

    Raises:
        UserError: one of them is missing.
    """
    images = find_folder(roots, "JPEGImages", "images", what="the images of HRSID")
    files = {}
    for split in ("train", "test"):
        path = find_optional(roots, f"annotations/{split}2017.json", what=f"the boxes of {split}", file=True)
        if path is None:
            raise UserError(f"the boxes of {split}: no annotations/{split}2017.json in '{roots[0]}'")
        files[split] = BoxFiles(path, images)
    return files


def find_shores(roots: Sequence[Path]) -> dict[str, Shore]:
    """Return stem -> whether it shows a shore; empty where the archive does not say."""
    shores: dict[str, Shore] = {}
    for shore in SHORES:
        path = find_optional(roots, f"inshore_offshore/{shore}.json", what=f"the {shore} images", file=True)
        if path is not None:
            names = (str(image.get("file_name", "")) for image in read_coco(path)["images"])
            shores |= {Path(name).stem: shore for name in names}
    return shores


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = text_set_parser(__doc__)
    parser.add_argument(
        "--split", choices=("published", "scene"), default="published", help="which split (default: published)"
    )
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "hrsid", check=check_val_share)
    shores = find_shores(roots)
    by_scene = args.split == "scene"
    print(prepare_boxes("hrsid", args, root, find_files(roots), shores=shores, by_scene=by_scene))
    print(f"inshore or offshore: {f'known of {len(shores)} images' if shores else 'not in this archive'}")


if __name__ == "__main__":
    main()
