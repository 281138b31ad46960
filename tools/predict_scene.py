#!/usr/bin/env python
r"""Map a whole scene, larger than memory if need be, from an optical and a SAR raster and the names of classes.

    tools/predict_scene.py --optical a.tif --sar b.tif --prompts "water, road, building" --output map.tif

The same as `mmovseg predict`; --help says what it can do.
"""

import sys

from mmovseg.inference.scene.command import main

if __name__ == "__main__":
    sys.exit(main())
