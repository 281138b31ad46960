#!/usr/bin/env python
"""RSITMD -> <output>/rsitmd/{train,val,test}/optical and <split>.jsonl: optical images with five finer captions each.

The download is linked in the README of xiaoyuan1996/AMFMN (Baidu, Google Drive):

    images/<scene type>_<n>.tif             4,743 images of 256 px
    dataset_RSITMD.json                     captions, keywords and split

Facts and where they are from:
- 4,743 images, train 4,291 and test 452: Yuan et al., "Exploring a Fine-Grained Multiscale Method for Cross-Modal
  Remote Sensing Image Retrieval", IEEE TGRS 60, 2022. *Checked here* on the text files: these numbers, and that four
  training images have empty captions only; `--drop-empty` leaves them out.
- val is not published; `--val-share` draws images.
- captions that are texts of two files (`test_caps.txt`, `test_filename.txt`, ...) are read too, without the JSON; there
  `train` holds the images of `val` as well, see `--val-share`.

    datasets/prepare_rsitmd.py --source RSITMD.zip --drop-empty
"""

from __future__ import annotations

from collections.abc import Sequence

from mmovseg.data.prepare import open_download
from mmovseg.errors import exit_on_user_error
from mmovseg.projects.sartext.data.prepare import caption_parser, check_val_share, prepare_captions

JSON_NAMES = ("dataset_RSITMD.json",)
IMAGE_FOLDERS = ("images", "rsitmd_images", "RSITMD_images")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(caption_parser(__doc__), argv, "rsitmd", check=check_val_share)
    line = prepare_captions("rsitmd", args, root, roots, json_names=JSON_NAMES, image_folders=IMAGE_FOLDERS)
    print(line)


if __name__ == "__main__":
    main()
