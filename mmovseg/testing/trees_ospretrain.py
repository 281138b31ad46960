"""A small tree laid out as OSPretrain-1M: made-up PNG files of several sizes under the names of its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SOURCES: dict[str, Mapping[str, Sequence[str]]] = {
    "QXSLAB_SARPORT": {"train": ("a1", "a2", "a3"), "test": ("a4.png",)},
    "WHU-OPT-SAR": {"train": ("w1", "w2"), "test": ("w3",)},
    "SpaceNet6": {},
    "PIE-RGB-SAR": {"train": ("p1",)},
}
"""Source -> its lists; one without lists has the pairs s1 to s3. Of the second the release leaves the test list out, of
the last everything."""


def write_tree(
    root: str | Path, *, size: int = 40, unpaired: tuple[int, int] = (5, 5), inner: bool = False, seed: int = 0
) -> Path:
    """Write a tree.

    Args:
        root: folder of the tree, made if it is not there.
        size: side of most rasters, pixels; every third one is a quarter wider.
        unpaired: how many unpaired optical and SAR images.
        inner: make the last two optical ones a source of their own, ``FAIR1M``, and the last two SAR ones ``SARDet``.
        seed: of the pixels.

    Returns:
        `root`.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    for source, lists in SOURCES.items():
        names = [Path(name).stem for part in lists.values() for name in part] or ["s1", "s2", "s3"]
        for number, name in enumerate(names):
            write_pair(root / source, name, height=size, width=size + (size // 4) * (number % 3 == 2), rng=rng)
        for part, listed in lists.items():
            (root / source / f"{part}.txt").write_text("\n".join(listed) + "\n")
    for modality, count, own in (("RGB", unpaired[0], "FAIR1M"), ("SAR", unpaired[1], "SARDet")):
        for number in range(count):
            folder = root / "Unpaired" / modality / (own if inner and number >= count - 2 else "")
            shape = (size + 4 * (number % 2), size) + (3,) * (modality == "RGB")
            write_png(folder / f"u{number}.png", rng.integers(0, 256, shape))
    return root


def write_pair(folder: Path, name: str, *, height: int, width: int, rng: np.random.Generator) -> None:
    """Write ``RGB/<name>.png`` and ``SAR/<name>.png``; where the optical image is bright on the left, so is SAR."""
    ramp = np.linspace(180, 40, width)[None, :]
    for modality, bands in (("RGB", 3), ("SAR", 1)):
        pixels = ramp[:, :, None] + rng.normal(0, 12, (height, width, bands))
        write_png(folder / modality / f"{name}.png", pixels if bands == 3 else pixels[:, :, 0])


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write one 8-bit PNG, grey or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
