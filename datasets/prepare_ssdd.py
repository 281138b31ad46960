#!/usr/bin/env python
"""SSDD -> <output>/ssdd/{train,val,test}/sar and <split>.json: ships in small SAR images, boxes.

The download is linked in the README of TianwenZhang0825/Official-SSDD (Google Drive, Baidu); of its parts, boxes in the
layout of COCO are read:

    Official-SSDD-OPEN/BBox_SSDD/coco_style/annotations/{train,test}.json, {test_inshore,test_offshore}.json
    Official-SSDD-OPEN/BBox_SSDD/coco_style/images/{train,test}/<n>.jpg     1,160 images of 214 to 668 px

Facts and where they are from:
- 1,160 images, 2,587 ships, 928 + 232: Zhang et al., "SAR Ship Detection Dataset (SSDD): Official Release", Remote
  Sensing 13 (18), 2021. Test are the images whose numbers end in 1 or 9. Folders and names: public code that reads it.
- which test images show a shore is published; it becomes `scene` of an image. Of train it is not.
- scenes that images were cut from are not published, so `--val-share` draws images.

    datasets/prepare_ssdd.py --source Official-SSDD-OPEN
"""

from __future__ import annotations

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
    files = {}
    for split in ("train", "test"):
        path = find_optional(
            roots, f"BBox_SSDD/coco_style/annotations/{split}.json", f"annotations/{split}.json", what=split, file=True
        )
        if path is None:
            raise UserError(f"the boxes of {split}: no BBox_SSDD/coco_style/annotations/{split}.json in '{roots[0]}'")
        images = find_folder(
            [path.parents[1]], f"images/{split}", split, "images", what=f"the images of {split} of SSDD"
        )
        files[split] = BoxFiles(path, images)
    return files


def find_shores(annotations: Path) -> dict[str, Shore]:
    """Return stem -> whether it shows a shore, of the test images; empty where the archive does not say."""
    shores: dict[str, Shore] = {}
    for shore in SHORES:
        path = annotations / f"test_{shore}.json"
        if path.is_file():
            shores |= {Path(str(image.get("file_name", ""))).stem: shore for image in read_coco(path)["images"]}
    return shores


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(text_set_parser(__doc__), argv, "ssdd", check=check_val_share)
    files = find_files(roots)
    print(prepare_boxes("ssdd", args, root, files, shores=find_shores(files["test"].json_file.parent)))


if __name__ == "__main__":
    main()
