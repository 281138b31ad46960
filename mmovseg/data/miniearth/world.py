"""Any window of the MiniEarth world, in both views, with labels and targets.

`render` is a pure function of seed, domain and world pixel coordinates. The world has no edge; rows grow southward and
columns eastward, and a pixel (row, col) covers the square of `gsd_m` metres at (row * gsd_m, col * gsd_m). Neighbouring
windows fit together without a seam, and a window equals the same crop of a larger one bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmovseg.data.miniearth.domain import Domain, get_domain
from mmovseg.data.miniearth.layout import Layout, survey
from mmovseg.data.miniearth.noise import Float, lattice_hash, pixel_axis, stream_seed
from mmovseg.data.miniearth.optical import expose, paint
from mmovseg.data.miniearth.radar import Aftermath, mean_power, misregister, record
from mmovseg.data.miniearth.regions import NUM_CLASSES, REGIONS
from mmovseg.data.miniearth.relief import reach_px
from mmovseg.data.miniearth.targets import RADIUS_M, boxes, clip_boxes, find_targets, paint_targets

VERSION = "1.0"
"""Changes whenever the same seed, domain and window would give other pixels."""

# Larger windows are made of tiles, for bounded memory; larger tiles lose less to the margins around them.
TILE_PX = 512


@dataclass
class Scene:
    """One window of the world.

    Attributes:
        optical: (H, W, 3) uint8 RGB, free of clouds.
        sar: (H, W, C) float32 in `domain.sar_unit`, channels `domain.sar_channels`.
        label: (H, W) uint8 class ids.
        targets: point targets whose centre lies in the window.
        domain: what was rendered.
        seed: world seed.
        row: first world row.
        col: first world column.
        damage: (H, W) uint8 state of the buildings when the radar looked (`Aftermath.state`), None if nothing happened.
    """

    optical: NDArray[np.uint8]
    sar: Float
    label: NDArray[np.uint8]
    domain: Domain
    seed: int
    row: int
    col: int
    targets: list[dict[str, Any]] = field(default_factory=list)
    damage: NDArray[np.uint8] | None = None

    @property
    def shares(self) -> list[float]:
        """Area share of every class, 0 .. 1, in the order of the label ids."""
        counts = np.bincount(self.label.ravel(), minlength=NUM_CLASSES)
        return [float(count) / self.label.size for count in counts]


def margin_px(domain: Domain) -> int:
    """Return how far outside a window its pixels depend on the ground."""
    sight = max(reach_px(domain.gsd_m), 2 * math.ceil(RADIUS_M / domain.gsd_m))
    return sight + math.ceil(domain.misregistration_px) + 3


def render(
    domain: str | Domain | dict[str, Any], row: int, col: int, height: int, width: int, *, seed: int = 0
) -> Scene:
    """Render a window of the world.

    Args:
        domain: name, `Domain` or its dict.
        row: first world pixel row, any integer.
        col: first world pixel column.
        height: rows, >= 1.
        width: columns, >= 1.
        seed: which world.

    Raises:
        UserError: unknown domain.
        ValueError: the window is empty.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a window needs at least one pixel, got {height} x {width}")
    seen = get_domain(domain)
    if height <= TILE_PX and width <= TILE_PX:
        scene = render_tile(seen, row, col, height, width, seed)
        scene.targets = clip_boxes(scene.targets, height, width)
        return scene
    scene = Scene(
        optical=np.empty((height, width, 3), dtype=np.uint8),
        sar=np.empty((height, width, len(seen.sar_channels)), dtype=np.float32),
        label=np.empty((height, width), dtype=np.uint8),
        domain=seen,
        seed=seed,
        row=row,
        col=col,
    )
    for top in range(0, height, TILE_PX):
        for left in range(0, width, TILE_PX):
            size = (min(TILE_PX, height - top), min(TILE_PX, width - left))
            tile = render_tile(seen, row + top, col + left, *size, seed)
            place = (slice(top, top + size[0]), slice(left, left + size[1]))
            scene.optical[place], scene.sar[place], scene.label[place] = tile.optical, tile.sar, tile.label
            for target in tile.targets:
                x0, y0, x1, y1 = target["box"]
                scene.targets.append({**target, "box": [x0 + left, y0 + top, x1 + left, y1 + top]})
    scene.targets = clip_boxes(scene.targets, height, width)
    return scene


def _survey_window(domain: Domain, row: int, col: int, height: int, width: int, seed: int) -> tuple[Layout, int]:
    """Return the ground of a window with its margin, and the seed of the region's own world."""
    margin = margin_px(domain)
    ys = pixel_axis(row - margin, height + 2 * margin) * domain.gsd_m
    xs = pixel_axis(col - margin, width + 2 * margin) * domain.gsd_m
    # every region is a land of its own, not another colouring of the same one
    seed_here = stream_seed(seed, domain.region)
    return survey(ys, xs, REGIONS[domain.region], seed_here), seed_here


def render_tile(
    domain: Domain,
    row: int,
    col: int,
    height: int,
    width: int,
    seed: int,
    event: Callable[[Layout, int], Aftermath] | None = None,
) -> Scene:
    """Render one window of at most `TILE_PX` pixels a side, boxes not clipped; see `render`.

    Args:
        domain: what sees the window.
        row: first world pixel row.
        col: first world pixel column.
        height: rows.
        width: columns.
        seed: which world.
        event: (ground, seed of the region's world) -> what an event between the two views left of the buildings.
    """
    margin = margin_px(domain)
    table = REGIONS[domain.region]
    rows, cols = height + 2 * margin, width + 2 * margin
    layout, seed_here = _survey_window(domain, row, col, height, width, seed)
    white = lattice_hash(
        np.arange(row - margin, row - margin + rows)[:, None],
        np.arange(col - margin, col - margin + cols)[None, :],
        stream_seed(seed_here, "pixel"),
    )
    radiance = paint(layout, table, domain, white, seed_here)
    aftermath = event(layout, seed_here) if event is not None else None
    power = mean_power(layout, table, domain, aftermath)
    targets = find_targets(layout, domain, seed_here)
    paint_targets(targets, radiance, power, domain)
    power = misregister(power, layout, domain, seed_here)
    inside = (slice(margin, margin + height), slice(margin, margin + width))
    pad = domain.optical_blur
    wide = (slice(margin - pad, margin + height + pad), slice(margin - pad, margin + width + pad))
    optical = expose(radiance[wide], domain, white[wide])[pad : pad + height, pad : pad + width]
    return Scene(
        optical=optical,
        sar=record(power[:, inside[0], inside[1]], domain, white[inside]),
        label=layout.label[inside].copy(),
        domain=domain,
        seed=seed,
        row=row,
        col=col,
        targets=boxes(targets, margin, margin, height, width),
        damage=None if aftermath is None else aftermath.state[inside].copy(),
    )
