#!/usr/bin/env python
"""Say how well an optical and a SAR raster fit together: overlap, resolution, dates, and the shift that is left.

    tools/check_pair.py --optical a.tif --sar b.tif --picture pair.png

The same as `mmovseg check-pair`; nothing is moved by what is found.
"""

import sys

from mmovseg.inference.check_pair import main

if __name__ == "__main__":
    sys.exit(main())
