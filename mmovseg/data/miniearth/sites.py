"""A coarse look at a large block of the world: where targets probably stand, for little work."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmovseg.data.miniearth.domain import Domain, get_domain
from mmovseg.data.miniearth.layout import survey
from mmovseg.data.miniearth.noise import pixel_axis, stream_seed
from mmovseg.data.miniearth.regions import REGIONS, TARGET_CATEGORIES
from mmovseg.data.miniearth.targets import Site, ground_of, target_sites

STEP_PX = 4
"""Every so many pixels in both directions the ground is looked at."""


def likely_sites(
    domain: str | Domain | dict[str, Any], row: int, col: int, size: int, *, seed: int = 0
) -> dict[str, Site]:
    """Return the sites of targets in a square block whose ground, looked at coarsely, is of the right kind.

    Not every one holds a target, since its outline may not fit; and a few targets are missed.

    Args:
        domain: name, `Domain` or its dict.
        row: first world pixel row.
        col: first world pixel column.
        size: pixels a side, a multiple of `STEP_PX`.
        seed: which world.

    Returns:
        Category -> (M, 2) rows and columns in the block.

    Raises:
        UserError: unknown domain.
    """
    seen = get_domain(domain)
    seed_here = stream_seed(seed, seen.region)
    ys, xs = pixel_axis(row, size) * seen.gsd_m, pixel_axis(col, size) * seen.gsd_m
    layout = survey(ys[STEP_PX // 2 :: STEP_PX], xs[STEP_PX // 2 :: STEP_PX], REGIONS[seen.region], seed_here)
    found = {}
    for category in TARGET_CATEGORIES:
        _, y, x = target_sites(category, ys, xs, seen.gsd_m, seed_here)
        inside = (y >= 0) & (x >= 0) & (y < size) & (x < size)
        y, x = y[inside], x[inside]
        fits = layout.apron if category == "aircraft" else layout.label == ground_of(category)
        kept = fits[y // STEP_PX, x // STEP_PX]
        found[category] = np.stack([y[kept], x[kept]], axis=1)
    return found
