#!/usr/bin/env python
"""Write golden.json: hashes of rendered pixels. Run it only when MiniEarth is meant to change, and raise its VERSION.

python tests/data/miniearth/make_golden.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from mmovseg.data.miniearth import render
from mmovseg.data.miniearth.world import VERSION

FILE = Path(__file__).with_name("golden.json")
WINDOWS = {
    "default": (120, 260, 48, 56, 0),
    "unseen_region_platform": (-3000, 917, 40, 40, 1),
    "unseen_region_platform_band": (320_064, 5_056, 40, 48, 0),
    "unseen_complex": (9_000, -9_000, 40, 40, 2),
}


def fingerprint(name: str) -> dict[str, str]:
    """Return the SHA-256 of optical, SAR and label pixels of one window (little-endian bytes)."""
    row, col, height, width, seed = WINDOWS[name]
    scene = render(name, row, col, height, width, seed=seed)
    arrays = {"optical": scene.optical, "sar": scene.sar.astype("<f4"), "label": scene.label}
    return {key: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for key, array in arrays.items()}


def main() -> None:
    """Write the file."""
    content = {"version": VERSION, "tolerance": "exact", "windows": {name: fingerprint(name) for name in WINDOWS}}
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
