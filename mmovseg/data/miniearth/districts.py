"""Districts: the irregular polygons that hold one land use each, and the roads on their borders.

A jittered lattice of feature points with one district per point (Worley noise). Points, their land use, their street
direction and the sector they belong to are functions of the lattice index, so they are known without looking around.
Lengths are metres. Pixel positions are kept as lattice index plus a fraction, so that float32 stays exact enough at any
distance from the origin, and every value depends on the pixel only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmovseg.data.miniearth.noise import (
    Double,
    Float,
    Hash,
    Int,
    fractal_normal,
    lattice_hash,
    rehash,
    spline_noise,
    stream_seed,
    unit,
)
from mmovseg.data.miniearth.regions import DISTRICT_CLASSES, RegionTable

CELL_M = 185.0
_SECTOR_CELL_M = 680.0
_JITTER = 0.8
_WARP_M = 16.0
_HIGHWAY_M = (16.0, 24.0)
_LANE_M = 10.0
_LANE_SHARE = 0.16


@dataclass
class Districts:
    """Per pixel (H, W) of a window: which district it lies in and how it lies to the borders.

    `kind`: land use id. `other`: land use across the nearest border. `key`: hash of the district.
    `dy`, `dx`: metres from the district's centre in the unwarped plane. `cos`, `sin`: its street direction.
    `border_m`: distance to the nearest border (bent with it), `highway`, `lane`: road masks.
    """

    kind: NDArray[np.uint8]
    other: NDArray[np.uint8]
    key: Hash
    dy: Float
    dx: Float
    cos: Float
    sin: Float
    border_m: Float
    highway: NDArray[np.bool_]
    lane: NDArray[np.bool_]
    highway_m: Float


@dataclass
class _Points:
    """Feature points on a (n, m) block of the lattice; offsets are in cells, from the cell's corner."""

    off_y: Float
    off_x: Float
    key: Hash
    kind: NDArray[np.uint8]
    sector: Hash


def _sector_keys(iy: Int, ix: Int, off_y: Float, off_x: Float, seed: int) -> Hash:
    """Return the hash of the coarse cell point nearest to each district point; highways part sectors."""
    scale = CELL_M / _SECTOR_CELL_M
    y = (iy[:, None] + off_y.astype(np.float64)) * scale
    x = (ix[None, :] + off_x.astype(np.float64)) * scale
    cell_y, cell_x = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    best = np.full(y.shape, np.inf)
    result = np.zeros(y.shape, dtype=np.uint32)
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            key = lattice_hash(cell_y + step_y, cell_x + step_x, seed)
            py = cell_y + step_y + 0.15 + 0.7 * unit(rehash(key, 0))
            px = cell_x + step_x + 0.15 + 0.7 * unit(rehash(key, 1))
            distance = (py - y) ** 2 + (px - x) ** 2
            closer = distance < best
            best = np.where(closer, distance, best)
            result = np.where(closer, key, result)
    return result


def _land_use(iy: Int, ix: Int, key: Hash, table: RegionTable, seed: int) -> NDArray[np.uint8]:
    """Choose a land use per district: a contest of one smooth field per use (so that uses cluster) plus chance."""
    scores = []
    for index, bias in enumerate(table.bias):
        smooth = spline_noise(
            iy.astype(np.float64), ix.astype(np.float64), cell=2.3, seed=stream_seed(seed, f"use{index}")
        )
        chance = unit(rehash(key, 2 + index)) + unit(rehash(key, 12 + index))
        scores.append(0.45 * smooth + 1.1 * chance + np.float32(bias))
    return np.array(DISTRICT_CLASSES, dtype=np.uint8)[np.argmax(np.stack(scores), axis=0)]


def _points(iy: Int, ix: Int, table: RegionTable, seed: int) -> _Points:
    key = lattice_hash(iy[:, None], ix[None, :], stream_seed(seed, "district"))
    off_y = 0.5 + _JITTER * (unit(rehash(key, 0)) - np.float32(0.5))
    off_x = 0.5 + _JITTER * (unit(rehash(key, 1)) - np.float32(0.5))
    sector = _sector_keys(iy, ix, off_y, off_x, stream_seed(seed, "sector"))
    return _Points(off_y, off_x, key, _land_use(iy, ix, key, table, stream_seed(seed, "use")), sector)


def _cell_fraction(coords: Double) -> tuple[Int, Float]:
    position = coords / CELL_M
    whole = np.floor(position)
    return whole.astype(np.int64), (position - whole).astype(np.float32)


class _Search:
    """The 3x3 neighbourhood search: vectors from each pixel to nine points, in cells, kept for a second pass."""

    def __init__(self, points: _Points, index: Int, stride: int, frac_y: Float, frac_x: Float) -> None:
        self.index = [index + (step_y * stride + step_x) for step_y in (-1, 0, 1) for step_x in (-1, 0, 1)]
        steps = [(step_y, step_x) for step_y in (-1, 0, 1) for step_x in (-1, 0, 1)]
        self.dy = [(points.off_y.take(i) + s[0]) - frac_y for i, s in zip(self.index, steps, strict=True)]
        self.dx = [(points.off_x.take(i) + s[1]) - frac_x for i, s in zip(self.index, steps, strict=True)]
        self.square = np.stack([y * y + x * x for y, x in zip(self.dy, self.dx, strict=True)])

    def pick(self, best: NDArray[np.uint8]) -> tuple[Int, Float, Float]:
        """Return lattice index and vector of candidate number `best` per pixel."""
        chosen, dy, dx = self.index[0].copy(), self.dy[0].copy(), self.dx[0].copy()
        for number in range(1, 9):
            mask = best == number
            np.copyto(chosen, self.index[number], where=mask)
            np.copyto(dy, self.dy[number], where=mask)
            np.copyto(dx, self.dx[number], where=mask)
        return chosen, dy, dx


def _least(values: Float) -> NDArray[np.uint8]:
    """Return the index of the smallest of (9, H, W) per pixel, the first of equals (much faster than argmin)."""
    low = values[0].copy()
    best = np.zeros(low.shape, dtype=np.uint8)
    for number in range(1, len(values)):
        closer = values[number] < low
        np.copyto(best, np.uint8(number), where=closer)
        np.minimum(low, values[number], out=low)
    return best


def _bisector_m(first: tuple[Float, Float], second: tuple[Float, Float]) -> Float:
    """Return the distance to the line halfway between the two points whose vectors are given, in metres."""
    (y1, x1), (y2, x2) = first, second
    span = np.sqrt((y2 - y1) ** 2 + (x2 - x1) ** 2) + np.float32(1e-6)
    return (y2 * y2 + x2 * x2 - y1 * y1 - x1 * x1) * np.float32(0.5 * CELL_M) / span


def find_districts(ys: Double, xs: Double, table: RegionTable, seed: int) -> Districts:
    """Locate every pixel of a window among the districts.

    Args:
        ys: (H,) ascending world coordinates of the pixel rows in metres, southward.
        xs: (W,) the same for columns, eastward.
        table: weights of the land uses.
        seed: world seed.
    """
    warp = [
        fractal_normal(ys, xs, cell=110.0, octaves=2, seed=stream_seed(seed, name), persistence=0.4)
        * np.float32(_WARP_M / CELL_M)
        for name in ("warp y", "warp x")
    ]
    (cell_y, frac_y), (cell_x, frac_x) = _cell_fraction(ys), _cell_fraction(xs)
    warped_y, warped_x = frac_y[:, None] + warp[0], frac_x[None, :] + warp[1]
    step_y, step_x = np.floor(warped_y), np.floor(warped_x)
    iy = np.arange(cell_y[0] - 2, cell_y[-1] + 3)
    ix = np.arange(cell_x[0] - 2, cell_x[-1] + 3)
    points = _points(iy, ix, table, seed)
    rows = cell_y[:, None] + step_y.astype(np.int64) - iy[0]
    cols = cell_x[None, :] + step_x.astype(np.int64) - ix[0]
    search = _Search(points, rows * len(ix) + cols, len(ix), warped_y - step_y, warped_x - step_x)

    nearest, y1, x1 = search.pick(_least(search.square))
    rest = search.square.copy()
    rest[search.square == search.square.min(axis=0)] = np.inf
    second, y2, x2 = search.pick(_least(rest))
    border = _bisector_m((y1, x1), (y2, x2))

    highway_m, half_m = _highways(search, points, nearest, (y1, x1), seed)
    pair = mixed_pair(points.key.take(nearest), points.key.take(second))
    lane = (border < _LANE_M / 2) & (unit(pair) < _LANE_SHARE)
    key = points.key.take(nearest)
    cos_table, sin_table = _directions(points)
    return Districts(
        kind=points.kind.take(nearest),
        other=points.kind.take(second),
        key=key,
        dy=(y1 + warp[0]) * np.float32(-CELL_M),
        dx=(x1 + warp[1]) * np.float32(-CELL_M),
        cos=cos_table.take(nearest),
        sin=sin_table.take(nearest),
        border_m=border,
        highway=highway_m < half_m,
        lane=lane,
        highway_m=highway_m,
    )


def mixed_pair(first: Hash, second: Hash) -> Hash:
    """Hash an unordered pair."""
    return rehash(first + second, 5)


def _highways(
    search: _Search, points: _Points, nearest: Int, vector: tuple[Float, Float], seed: int
) -> tuple[Float, Float]:
    """Return the distance to the next sector's border and half the width of the highway there, in metres."""
    sector = points.sector.take(nearest)
    square = search.square.copy()
    for number, index in enumerate(search.index):
        square[number][points.sector.take(index) == sector] = np.inf
    found = np.isfinite(square.min(axis=0))
    across, y2, x2 = search.pick(_least(square))
    distance = np.where(found, _bisector_m(vector, (y2, x2)), np.float32(1e6))
    low, high = _HIGHWAY_M
    width = low + (high - low) * unit(mixed_pair(sector, points.sector.take(across)))
    return distance, width * np.float32(0.5)


def _directions(points: _Points) -> tuple[Float, Float]:
    """Return the street direction of every district as a unit vector; half of them share their sector's."""
    own = unit(rehash(points.key, 30)) < 0.5
    source = np.where(own, rehash(points.key, 31), rehash(points.sector, 31))
    # half the angle of a random point on the circle would need trigonometry; a rational parametrisation does not
    t = unit(source) * np.float32(0.8284) - np.float32(0.4142)
    scale = 1.0 / (1.0 + t * t)
    return ((1.0 - t * t) * scale).astype(np.float32), (2.0 * t * scale).astype(np.float32)
