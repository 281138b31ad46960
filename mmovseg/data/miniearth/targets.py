"""Point targets: aircraft on aprons, ships on water, vehicles on roads, with boxes, painted into both views.

Candidates sit on a jittered lattice of the world; one is kept where its whole outline lies on the right ground. Both
follow from the world coordinates alone, so neighbouring windows agree on a ship that their border cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmovseg.data.miniearth.domain import Domain
from mmovseg.data.miniearth.layout import Layout
from mmovseg.data.miniearth.noise import Double, Float, Hash, lattice_hash, rehash, stream_seed, unit
from mmovseg.data.miniearth.regions import BARELAND, ROAD, TARGET_DB, WATER, Color

Mask = NDArray[np.bool_]
Site = NDArray[np.int64]

# No outline reaches farther from its centre than this.
RADIUS_M = 17.5
_MIN_PIXELS = 2
_HEADINGS = tuple((float(np.cos(a)), float(np.sin(a))) for a in np.arange(8) * np.pi / 8)


@dataclass(frozen=True)
class _Kind:
    """One category: lattice spacing and jitter in cells, chance per candidate, ground, colours, radar echo in dB."""

    category: str
    cell_m: float
    jitter: float
    chance: float
    ground: int
    outline: Callable[[Double, Double], Mask]
    colors: tuple[Color, ...]
    echo_db: float


@dataclass
class Target:
    """One target in a window with margin: `rows`, `cols` index the window's arrays; (y, x) is the centre's pixel."""

    kind: _Kind
    key: Hash
    y: int
    x: int
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]


def _aircraft(along: Double, across: Double) -> Mask:
    side = np.abs(across)
    body = (side < 1.9) & (np.abs(along) < 15.5)
    wing = (side < 15.0) & (along > -2.5 - 0.5 * side) & (along < 4.0 - 0.5 * side)
    tail = (side < 6.0) & (along > -15.0 - 0.2 * side) & (along < -10.5 - 0.3 * side)
    return body | wing | tail


def _ship(along: Double, across: Double) -> Mask:
    taper = np.maximum(along - 3.0, 0.0) / 13.0
    return (np.abs(across) < 3.8 * (1.0 - taper * taper)) & (along > -15.0) & (along < 15.5)


def _vehicle(along: Double, across: Double) -> Mask:
    return (np.abs(along) < 4.6) & (np.abs(across) < 2.0)


_KINDS = (
    _Kind("aircraft", 42.0, 0.10, 0.55, BARELAND, _aircraft, ((236.0, 238.0, 240.0), (206.0, 210.0, 216.0)), 2.0),
    _Kind(
        "ship", 84.0, 0.55, 0.40, WATER, _ship, ((222.0, 220.0, 214.0), (150.0, 82.0, 66.0), (96.0, 100.0, 108.0)), 4.0
    ),
    _Kind(
        "vehicle",
        24.0,
        0.55,
        0.50,
        ROAD,
        _vehicle,
        ((238.0, 238.0, 236.0), (172.0, 44.0, 40.0), (44.0, 62.0, 120.0), (38.0, 38.0, 42.0)),
        0.0,
    ),
)


def find_targets(layout: Layout, domain: Domain, seed: int) -> list[Target]:
    """Return the targets whose outline lies completely in the window of `layout`, in a fixed order."""
    found = []
    for kind in _KINDS:
        if (layout.label == kind.ground).any():
            found += _find_kind(kind, layout, domain.gsd_m, seed)
    return found


def target_sites(category: str, ys_m: Double, xs_m: Double, gsd_m: float, seed: int) -> tuple[Hash, Site, Site]:
    """Return key, row and column of the pixels at which a category would have targets, whatever the ground there is.

    Args:
        category: of `TARGET_CATEGORIES`.
        ys_m: (H,) world coordinates of the window's pixel rows in metres.
        xs_m: (W,) the same for the columns.
        gsd_m: metres per pixel.
        seed: of the region's world.

    Returns:
        (M,) hashes, and (M,) indices of rows and columns; some lie up to a lattice cell outside the window.
    """
    kind = next(kind for kind in _KINDS if kind.category == category)
    iy = np.arange(np.floor(ys_m[0] / kind.cell_m), np.floor(ys_m[-1] / kind.cell_m) + 1).astype(np.int64)
    ix = np.arange(np.floor(xs_m[0] / kind.cell_m), np.floor(xs_m[-1] / kind.cell_m) + 1).astype(np.int64)
    key = lattice_hash(iy[:, None], ix[None, :], stream_seed(seed, kind.category))
    y_m = (iy[:, None] + 0.5 + kind.jitter * (unit(rehash(key, 0)).astype(np.float64) - 0.5)) * kind.cell_m
    x_m = (ix[None, :] + 0.5 + kind.jitter * (unit(rehash(key, 1)).astype(np.float64) - 0.5)) * kind.cell_m
    # the pixel from world coordinates first: rounding must not depend on where the window starts
    y = np.floor(y_m / gsd_m).astype(np.int64) - int(np.floor(ys_m[0] / gsd_m))
    x = np.floor(x_m / gsd_m).astype(np.int64) - int(np.floor(xs_m[0] / gsd_m))
    kept = unit(rehash(key, 2)) < kind.chance
    return key[kept], y[kept], x[kept]


def ground_of(category: str) -> int:
    """Return the class id of the ground that targets of a category stand on."""
    return next(kind.ground for kind in _KINDS if kind.category == category)


def _find_kind(kind: _Kind, layout: Layout, gsd_m: float, seed: int) -> list[Target]:
    height, width = layout.label.shape
    radius = int(np.ceil(RADIUS_M / gsd_m))
    keys, ys, xs = target_sites(kind.category, layout.y_m, layout.x_m, gsd_m, seed)
    inside = (ys >= radius) & (xs >= radius) & (ys < height - radius) & (xs < width - radius)
    targets = []
    for number in np.flatnonzero(inside):
        target = _place(kind, layout, keys[number : number + 1], int(ys[number]), int(xs[number]), gsd_m)
        if target is not None:
            targets.append(target)
    return targets


def _heading(kind: _Kind, layout: Layout, key: Hash, y: int, x: int, gsd_m: float) -> tuple[float, float]:
    """Return the direction of the bow as (down, right): free on water, along the road, squared to the apron."""
    if kind.ground == WATER:
        t = 2.0 * float(unit(rehash(key, 3))[0]) - 1.0
        return (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
    if kind.ground == BARELAND:
        return float(layout.cos[y, x]), float(layout.sin[y, x])
    lengths = np.arange(1, 6) * 3.0 / gsd_m
    lengths = np.concatenate([-lengths, lengths])
    scores = []
    for down, right in _HEADINGS:
        rows, cols = (y + np.rint(lengths * down)).astype(np.int64), (x + np.rint(lengths * right)).astype(np.int64)
        scores.append(int((layout.label[rows, cols] == ROAD).sum()))
    return _HEADINGS[int(np.argmax(scores))]


def _place(kind: _Kind, layout: Layout, key: Hash, y: int, x: int, gsd_m: float) -> Target | None:
    """Return the target at a pixel, or None where its outline does not fit the ground."""
    if layout.label[y, x] != kind.ground or (kind.category == "aircraft" and not layout.apron[y, x]):
        return None
    down, right = _heading(kind, layout, key, y, x, gsd_m)
    radius = int(np.ceil(RADIUS_M / gsd_m))
    offset = np.arange(-radius, radius + 1)
    along = (offset[:, None] * down + offset[None, :] * right) * gsd_m
    across = (offset[None, :] * down - offset[:, None] * right) * gsd_m
    rows, cols = np.nonzero(kind.outline(along, across))
    rows, cols = rows + y - radius, cols + x - radius
    if len(rows) < _MIN_PIXELS or (layout.label[rows, cols] != kind.ground).any():
        return None
    return Target(kind, key, y, x, rows, cols)


def paint_targets(targets: list[Target], radiance: Float, power: Float, domain: Domain) -> None:
    """Paint targets into radiance (H, W, 3) and linear mean power (P, H, W), in place."""
    for target in targets:
        chance = float(unit(rehash(target.key, 4))[0])
        color = target.kind.colors[int(chance * len(target.kind.colors))]
        radiance[target.rows, target.cols] = np.array(color, dtype=np.float32)
        strength = 0.6 + 0.8 * float(unit(rehash(target.key, 5))[0])
        for number, name in enumerate(domain.polarizations):
            echo = 10.0 ** ((TARGET_DB[name] + target.kind.echo_db - 4.0) / 10.0)
            power[number, target.rows, target.cols] += np.float32(strength * echo)


def boxes(targets: list[Target], top: int, left: int, height: int, width: int) -> list[dict[str, Any]]:
    """Return category and box of the targets whose centre lies in a sub-window, in pixels of that sub-window.

    A box is [x0, y0, x1, y1], the end exclusive; it may reach over the edge of the sub-window.
    """
    result = []
    for target in targets:
        y, x = target.y - top, target.x - left
        if 0 <= y < height and 0 <= x < width:
            x0, x1 = int(target.cols.min()) - left, int(target.cols.max()) - left + 1
            y0, y1 = int(target.rows.min()) - top, int(target.rows.max()) - top + 1
            result.append({"category": target.kind.category, "box": [x0, y0, x1, y1]})
    return result


def clip_boxes(targets: list[dict[str, Any]], height: int, width: int) -> list[dict[str, Any]]:
    """Return the targets with boxes cut at the edges of the window, ordered by category, row and column."""
    clipped = []
    for target in targets:
        x0, y0, x1, y1 = target["box"]
        box = [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]
        clipped.append({"category": target["category"], "box": box})
    return sorted(clipped, key=lambda target: (target["category"], target["box"][1], target["box"][0], target["box"]))
