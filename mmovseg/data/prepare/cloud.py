"""Clouds over prepared tiles: drawn once for each tile, with the masks kept."""

from __future__ import annotations

import zlib

import numpy as np

from mmovseg.data.clouds import Clouds
from mmovseg.data.prepare.rasters import Layer


def add_clouds(optical: Layer, clouds: Clouds, *, stem: str, kind: str, seed: int = 0) -> dict[str, Layer]:
    """Return the clouded image and its masks, ready for a job.

    The generator is seeded by (`seed`, `kind`, `stem`): the cloud of a tile depends on nothing else, so an interrupted
    run, or one with more workers, gives the same.

    Args:
        optical: (H, W, 3) uint8.
        clouds: for example `CloudSynthesizer(kind="thick")`.
        stem: of the tile.
        kind: names the folders.
        seed: of the run.

    Returns:
        ``optical_<kind>`` (H, W, 3) uint8, ``cloud_<kind>`` and ``shadow_<kind>`` (H, W) uint8: opacity of the cloud
        and share of light taken by its shadow, times 255, rounded.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{kind}/{stem}".encode())])
    clouded, alpha, shadow = clouds(optical.array, rng)
    return {
        f"optical_{kind}": optical.with_array(clouded),
        f"cloud_{kind}": optical.with_array(_to_8bit(alpha)),
        f"shadow_{kind}": optical.with_array(_to_8bit(shadow)),
    }


def _to_8bit(share: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(share, 0.0, 1.0) * 255.0).astype(np.uint8)
