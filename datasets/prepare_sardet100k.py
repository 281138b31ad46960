#!/usr/bin/env python
"""SARDet-100K -> <output>/sardet100k/{train,val,test}/sar and <split>.json: six categories in SAR images, boxes.

The download is linked in the README of zcablii/SARDet_100K (Baidu, OneDrive, Kaggle):

    SARDet_100K/Annotations/{train,val,test}.json          COCO
    SARDet_100K/JPEGImages/{train,val,test}/*              116,598 images, mostly 512 px; `Images` too

Facts and where they are from:
- ten public data sets, put together and cut into images of one size: Li et al., "SARDet-100K", NeurIPS 2024. 94,493 +
  10,492 + 11,613 images; ship, aircraft, car, tank, bridge, harbor: that paper and its code.
- the split is published. Which source an image is from is not in the files, so no part knows its scene.
- category names are written in lower case, their numbers stay.

    datasets/prepare_sardet100k.py --source SARDet_100K.zip --workers 4
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.prepare import find_folder, find_optional, open_download
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.sartext.data.prepare import BoxFiles, prepare_boxes, text_set_parser

SPLITS = ("train", "val", "test")


def find_files(roots: Sequence[Path]) -> dict[str, BoxFiles]:
    """Find boxes and images of the three splits.

    Raises:
        UserError: one of them is missing.
    """
    files = {}
    for split in SPLITS:
        path = find_optional(roots, f"Annotations/{split}.json", what=f"the boxes of {split}", file=True)
        if path is None:
            raise UserError(f"the boxes of {split}: no Annotations/{split}.json in '{roots[0]}'")
        images = find_folder(roots, f"JPEGImages/{split}", f"Images/{split}", what=f"the images of {split}")
        files[split] = BoxFiles(path, images)
    return files


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(text_set_parser(__doc__, draws_val=False), argv, "sardet100k")
    print(prepare_boxes("sardet100k", args, root, find_files(roots)))


if __name__ == "__main__":
    main()
