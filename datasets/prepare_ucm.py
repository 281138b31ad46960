#!/usr/bin/env python
"""UCM captions -> <output>/ucm/{train,val,test}/optical and <split>.jsonl: aerial images, five captions each.

The download is linked in the README of 201528014227051/RSICD_optimal (Baidu, Google Drive):

    UCM_captions/imgs/<n>.tif               2,100 images, 21 scene types of 100 each, in their order
    UCM_captions/dataset.json               captions and split

Facts and where they are from:
- aerial images of the USGS, 0.3 m; five captions an image, many of them one pattern: Qu et al., "Deep Semantic
  Understanding of High Resolution Remote Sensing Image", CITS 2016. The split 1,680 + 210 + 210 is in the JSON.
  *Checked here*: 1,680 and 210 images in the text files of train and test.
- captions that are texts of two files (`test_caps.txt`, `test_filename.txt`, ...) are read too, without the JSON; there
  `train` holds the images of `val` as well, see `--val-share`.

    datasets/prepare_ucm.py --source UCM_captions.zip
"""

from __future__ import annotations

from collections.abc import Sequence

from mmovseg.data.prepare import open_download
from mmovseg.errors import exit_on_user_error
from mmovseg.projects.sartext.data.prepare import caption_parser, check_val_share, prepare_captions

JSON_NAMES = ("dataset.json", "dataset_ucm.json")
IMAGE_FOLDERS = ("UCM_captions/imgs", "imgs", "images")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(caption_parser(__doc__), argv, "ucm", check=check_val_share)
    line = prepare_captions("ucm", args, root, roots, json_names=JSON_NAMES, image_folders=IMAGE_FOLDERS)
    print(line)


if __name__ == "__main__":
    main()
