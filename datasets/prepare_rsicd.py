#!/usr/bin/env python
"""RSICD -> <output>/rsicd/{train,val,test}/optical and <split>.jsonl: optical images with five captions each, 224 px.

The download is linked in the README of 201528014227051/RSICD_optimal (Baidu, Google Drive):

    RSICD_images/<scene type>_<n>.jpg       10,921 images
    dataset_rsicd.json                      captions and split

Facts and where they are from:
- five captions an image, some of them repeated to make five; the split 8,734 + 1,094 + 1,093 is in the JSON: Lu et al.,
  "Exploring Models and Data for Remote Sensing Image Caption Generation", IEEE TGRS 56, 2018. *Checked here*: the 1,093
  test images and 5,465 captions of the text files.
- captions that are texts of two files (`test_caps.txt`, `test_filename.txt`, ...) are read too, without the JSON; there
  `train` holds the images of `val` as well, see `--val-share`.

    datasets/prepare_rsicd.py --source RSICD.zip
"""

from __future__ import annotations

from collections.abc import Sequence

from mmovseg.data.prepare import open_download
from mmovseg.errors import exit_on_user_error
from mmovseg.projects.sartext.data.prepare import caption_parser, check_val_share, prepare_captions

JSON_NAMES = ("dataset_rsicd.json",)
IMAGE_FOLDERS = ("RSICD_images", "images", "imgs")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(caption_parser(__doc__), argv, "rsicd", check=check_val_share)
    line = prepare_captions("rsicd", args, root, roots, json_names=JSON_NAMES, image_folders=IMAGE_FOLDERS)
    print(line)


if __name__ == "__main__":
    main()
