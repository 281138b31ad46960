#!/usr/bin/env python
"""Sydney captions -> <output>/sydney/{train,val,test}/optical and <split>.jsonl: optical images, five captions each.

The download is linked in the README of 201528014227051/RSICD_optimal (Baidu, Google Drive):

    Sydney_captions/imgs/<n>.tif            613 images of 500 px out of one scene of Sydney, 0.5 m
    Sydney_captions/dataset.json            captions and split

Facts and where they are from:
- seven scene types; the split 497 + 58 + 58 is in the JSON: Qu et al., CITS 2016. All images are cut from one Google
  Earth image, so test resembles train. *Checked here*: 497 and 58 images in the text files of train and test.
- captions that are texts of two files (`test_caps.txt`, `test_filename.txt`, ...) are read too, without the JSON; there
  `train` holds the images of `val` as well, see `--val-share`.

    datasets/prepare_sydney.py --source Sydney_captions.zip
"""

from __future__ import annotations

from collections.abc import Sequence

from mmovseg.data.prepare import open_download
from mmovseg.errors import exit_on_user_error
from mmovseg.projects.sartext.data.prepare import caption_parser, check_val_share, prepare_captions

JSON_NAMES = ("dataset.json", "dataset_sydney.json")
IMAGE_FOLDERS = ("Sydney_captions/imgs", "imgs", "images")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(caption_parser(__doc__), argv, "sydney", check=check_val_share)
    line = prepare_captions("sydney", args, root, roots, json_names=JSON_NAMES, image_folders=IMAGE_FOLDERS)
    print(line)


if __name__ == "__main__":
    main()
