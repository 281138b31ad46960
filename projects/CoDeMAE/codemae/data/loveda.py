"""LoveDA: land cover of Chinese cities and countryside, 1024 px at 0.3 m, optical RGB, 8 bit.

Layout as published: ``<split>/{Urban,Rural}/{images_png,masks_png}/<number>.png``, splits Train (2,522 images), Val
(1,669), Test (1,796, without masks). Stored labels: 0 no data, 1 background, 2 building, 3 road, 4 water, 5 barren,
6 forest, 7 agriculture. Here 0 is ignored and the classes count from 0, which is also what the server of the benchmark
wants its PNGs to hold.

Source: Wang et al., "LoveDA: A Remote Sensing Land-Cover Dataset for Domain Adaptive Semantic Segmentation", NeurIPS
2021 track on data sets; https://github.com/Junjue-Wang/LoveDA (figures reported there; academic use).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmovseg.data.datasets.catalog import datasets_root
from mmovseg.data.datasets.folders import load_pair_folder
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.errors import UserError

SPLITS = {"train": ("Train",), "val": ("Val",), "trainval": ("Train", "Val"), "test": ("Test",)}
AREAS = ("Urban", "Rural")
NUM_CLASSES = 7
GSD_M = 0.3
_LABEL_MAP = {0: IGNORE_LABEL, **{stored: stored - 1 for stored in range(1, NUM_CLASSES + 1)}}


def load_loveda(
    split: str, *, root: str | Path | None = None, folder: str = "LoveDA", areas: Sequence[str] = AREAS
) -> list[dict[str, Any]]:
    """List the images of a split.

    Args:
        split: ``train``, ``val``, ``trainval``, or ``test``, which has no labels.
        root: folder of all data sets; None = `DETECTRON2_DATASETS`.
        folder: below the root.
        areas: of ``Urban`` and ``Rural``.

    Returns:
        Dataset dicts; `image_id` is the number of the image, which no other image of the data set has.

    Raises:
        UserError: unknown split or area, or a folder or a mask is missing.
    """
    if split not in SPLITS:
        raise UserError(f"LoveDA has no split '{split}'; it has: {', '.join(SPLITS)}")
    unknown = [area for area in areas if area not in AREAS]
    if unknown or not areas:
        raise UserError(f"LoveDA has no area '{unknown[0] if unknown else ''}'; it has: {', '.join(AREAS)}")
    base = (Path(root) if root is not None else datasets_root()) / folder
    dicts: list[dict[str, Any]] = []
    for part in SPLITS[split]:
        for area in areas:
            place = base / part / area
            masks = None if split == "test" else place / "masks_png"
            found = load_pair_folder(place / "images_png", None, masks, label_map=_LABEL_MAP)
            dicts += [{**item, "gsd_m": GSD_M, "source": area.lower()} for item in found]
    return dicts
