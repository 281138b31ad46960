"""The optical sensor: colours and textures of the ground under one sun, as 8-bit RGB.

Colours of neighbouring classes overlap on purpose (dry grass, stubble and bare soil; asphalt, concrete roofs and grey
soil); crop rows, crowns, clumps and shapes tell them apart. Works on a window with a margin; the caller crops.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mmovseg.data.miniearth.domain import Domain
from mmovseg.data.miniearth.layout import Layout
from mmovseg.data.miniearth.noise import Float, Hash, rehash, spline_noise, stream_seed, unit
from mmovseg.data.miniearth.regions import (
    BARELAND,
    CITY,
    FARMLAND,
    FOREST,
    RANGELAND,
    ROAD,
    SEASONS,
    WATER,
    Color,
    RegionTable,
)
from mmovseg.data.miniearth.relief import cast_shadow

_LANE_MARK_M = 1.3


def _choose(colors: tuple[Color, ...], share: Float) -> Float:
    """Return a colour (n, 3) per value of `share` in 0 .. 1, blended between the two nearest of the palette."""
    table = np.array(colors, dtype=np.float32)
    position = share * np.float32(len(colors) - 1)
    first = np.minimum(position.astype(np.int64), len(colors) - 2)
    weight = (position - first)[:, None].astype(np.float32)
    return table[first] * (1 - weight) + table[first + 1] * weight


def _pick(colors: tuple[Color, ...], share: Float) -> Float:
    """Return one colour (n, 3) of the palette per value of `share` in (0, 1)."""
    return np.array(colors, dtype=np.float32)[(share * len(colors)).astype(np.int64)]


def triangle_wave(position: Float) -> Float:
    """Return a wave of period 1 between -1 and 1."""
    return 4.0 * np.abs(position - np.floor(position + np.float32(0.5))) - np.float32(1.0)


class _Painter:
    """Paints one class after the other into `rgb` (H*W, 3); arrays of a class are gathered once per use."""

    def __init__(self, layout: Layout, table: RegionTable, domain: Domain, white: Float, seed: int) -> None:
        self.layout, self.table, self.domain, self.white, self.seed = layout, table, domain, white, seed
        self.rgb = np.zeros((layout.label.size, 3), dtype=np.float32)
        vegetation, crops = SEASONS[domain.season]
        self.vegetation = np.array(vegetation, dtype=np.float32)
        self.crops = np.array(crops, dtype=np.float32)
        # light from the north-west makes crowns bright on one side: a difference of the fine noise along the sun
        azimuth = math.radians(domain.sun_azimuth_deg)
        self.to_sun = (-math.cos(azimuth), math.sin(azimuth))

    def put(self, where: NDArray[np.int64], color: Float, brightness: Float) -> None:
        self.rgb[where] = color * (np.float32(1.0) + brightness)[:, None]

    def bareland(self, where: NDArray[np.int64]) -> None:
        lay = self.layout
        middle, coarse = lay.middle.take(where), lay.coarse.take(where)
        share = np.clip(0.5 + 0.16 * coarse + 0.12 * middle + 0.4 * (unit(rehash(lay.key.take(where), 70)) - 0.5), 0, 1)
        # dry gullies: thin dark lines along the zero level of the noise
        gully = np.maximum(0.0, 1.0 - 5.0 * np.abs(middle)).astype(np.float32)
        brightness = 0.04 * middle - 0.10 * gully + 0.03 * self.white.take(where)
        color = _choose(self.table.bareland, share)
        apron = lay.apron.take(where)
        color[apron] = np.array((172.0, 168.0, 160.0), dtype=np.float32)
        seam = triangle_wave(lay.u.take(where) / np.float32(17.0)) > 0.82
        brightness = np.where(apron, 0.02 * self.white.take(where) - 0.07 * seam, brightness)
        self.put(where, color, brightness.astype(np.float32))

    def rangeland(self, where: NDArray[np.int64]) -> None:
        lay = self.layout
        middle, fine = lay.middle.take(where), lay.fine.take(where)
        share = np.clip(0.5 + 0.14 * lay.coarse.take(where) + 0.5 * (unit(rehash(lay.key.take(where), 71)) - 0.5), 0, 1)
        color = _choose(self.table.rangeland, share) * self.vegetation
        shrub = np.clip(fine + 0.45 * middle - 1.25, 0.0, 0.8)
        brightness = 0.075 * middle + 0.03 * self.white.take(where) - 0.45 * shrub
        self.put(where, color, brightness.astype(np.float32))

    def farmland(self, where: NDArray[np.int64]) -> None:
        lay = self.layout
        parcel, edge = lay.parcel.take(where), lay.edge_m.take(where)
        color = _pick(self.table.crops, unit(rehash(parcel, 20))) * self.crops
        color = color * (0.9 + 0.2 * unit(rehash(parcel, 21)))[:, None]
        along = np.where(unit(rehash(parcel, 22)) < 0.75, lay.u.take(where), lay.v.take(where))
        period = np.maximum(9.0 + 8.0 * unit(rehash(parcel, 23)), np.float32(2.2 * self.domain.gsd_m))
        depth = 0.16 * np.maximum(unit(rehash(parcel, 24)) - 0.12, 0.0)
        rows = triangle_wave(along / period + unit(rehash(parcel, 25))) * depth
        hedge = np.where(edge < 2.2, np.float32(-0.22), np.float32(0.0))
        brightness = rows + hedge + 0.02 * self.white.take(where) + 0.03 * lay.middle.take(where)
        self.put(where, color, brightness)

    def forest(self, where: NDArray[np.int64], crowns: Float) -> None:
        lay = self.layout
        fine = lay.fine.take(where)
        share = np.clip(0.5 + 0.18 * lay.coarse.take(where) + 0.12 * fine, 0, 1)
        color = _choose(self.table.forest, share) * self.vegetation
        brightness = 0.19 * crowns.take(where) + 0.07 * fine + 0.04 * lay.middle.take(where)
        brightness += 0.03 * self.white.take(where)
        if self.table.tree_cover < 1.0:
            open_ground = fine < (1.0 - 2.1 * self.table.tree_cover)
            soil = np.array(self.table.rangeland[0], dtype=np.float32) * self.vegetation
            color[open_ground] = soil
            brightness = np.where(open_ground, 0.04 * self.white.take(where), brightness)
        self.put(where, color, np.maximum(brightness, -0.6))

    def city(self, where: NDArray[np.int64]) -> None:
        lay = self.layout
        lot = lay.parcel.take(where)
        ground = _choose(self.table.city_ground, unit(rehash(lot, 30)))
        ground *= (1.0 + 0.05 * lay.middle.take(where) + 0.03 * self.white.take(where))[:, None]
        tree = lay.fine.take(where) > 1.15
        ground[tree] = np.array(self.table.forest[0], dtype=np.float32) * self.vegetation * np.float32(1.1)
        roof = _pick(self.table.roofs, unit(rehash(lot, 31)))
        gable = unit(rehash(lot, 32)) < 0.6
        side = -lay.sin.take(where) * self.to_sun[0] + lay.cos.take(where) * self.to_sun[1]
        slope = np.where(gable, np.sign(lay.roof_v.take(where)) * side * np.float32(0.16), np.float32(0.0))
        roof = roof * (0.92 + 0.2 * unit(rehash(lot, 33)) + slope + 0.02 * self.white.take(where))[:, None]
        self.rgb[where] = np.where((lay.height_m.take(where) > 0)[:, None], roof, ground)

    def road(self, where: NDArray[np.int64]) -> None:
        lay = self.layout
        color = np.broadcast_to(np.array(self.table.road, dtype=np.float32), (where.size, 3))
        wear = 0.14 * (unit(rehash(lay.key.take(where), 72)) - 0.5)
        brightness = wear + 0.035 * self.white.take(where) + 0.03 * lay.coarse.take(where)
        axis = lay.highway_m.take(where)
        brightness = brightness + np.where(axis < _LANE_MARK_M, np.float32(0.30), np.float32(0.0))
        self.put(where, color, brightness.astype(np.float32))

    def water(self, where: NDArray[np.int64]) -> None:
        lay = self.layout
        shallow = np.clip(1.0 - lay.depth_m.take(where) / np.float32(28.0), 0.0, 1.0)
        deep, shore = (np.array(color, dtype=np.float32) for color in self.table.water)
        share = np.clip(0.65 * shallow + 0.15 * lay.coarse.take(where) + 0.15, 0.0, 1.0)[:, None]
        color = deep * (1 - share) + shore * share
        self.put(where, color, 0.025 * self.white.take(where) + 0.02 * lay.middle.take(where))


def paint(layout: Layout, table: RegionTable, domain: Domain, white: Hash, seed: int) -> Float:
    """Return the radiance of the ground, (H, W, 3) float32 on the 0..255 scale, shadows included.

    Args:
        layout: the ground with a margin of at least the longest shadow.
        table: palette of the region.
        domain: season and sun.
        white: one hash per pixel.
        seed: world seed.
    """
    painter = _Painter(layout, table, domain, _grain(white), seed)
    index = {kind: np.flatnonzero(layout.label == kind) for kind in range(7)}
    if index[FOREST].size:
        step = 0.4 * table.crown_m
        lit = spline_noise(
            layout.y_m + painter.to_sun[0] * step,
            layout.x_m + painter.to_sun[1] * step,
            cell=table.crown_m * 0.72,
            seed=stream_seed(seed, "fine"),
        )
        painter.forest(index[FOREST], layout.fine - lit)
    for kind, method in (
        (BARELAND, painter.bareland),
        (RANGELAND, painter.rangeland),
        (FARMLAND, painter.farmland),
        (CITY, painter.city),
        (ROAD, painter.road),
        (WATER, painter.water),
    ):
        if index[kind].size:
            method(index[kind])
    rgb = painter.rgb.reshape(*layout.label.shape, 3)
    reach = 1.0 / math.tan(math.radians(domain.sun_elevation_deg))
    height = layout.height_m + np.where(layout.label == FOREST, np.float32(8.0 * table.tree_cover), np.float32(0.0))
    shadow = cast_shadow(height, (-painter.to_sun[0], -painter.to_sun[1]), reach, domain.gsd_m)
    rgb[shadow] *= np.array((0.48, 0.52, 0.60), dtype=np.float32)
    return rgb


def _grain(white: Hash) -> Float:
    """Return a nearly normal value per pixel: the sum of two uniform ones, scaled to standard deviation 1."""
    low = (white & np.uint32(0xFFFF)).astype(np.float32)
    high = (white >> np.uint32(16)).astype(np.float32)
    return (low + high - np.float32(65535.0)) * np.float32(math.sqrt(6.0) / 65536.0)


def _blur_axis(values: Float, axis: int) -> Float:
    """Smooth by (1, 2, 1) / 4 along an axis; the outermost samples repeat."""
    before = np.concatenate([values.take([0], axis), values.take(range(values.shape[axis] - 1), axis)], axis)
    after = np.concatenate([values.take(range(1, values.shape[axis]), axis), values.take([-1], axis)], axis)
    return 0.25 * (before + after) + 0.5 * values


def expose(radiance: Float, domain: Domain, white: Hash) -> NDArray[np.uint8]:
    """Return what the camera records, (H, W, 3) uint8: blur, gain, offset, noise, 8 bits."""
    image = radiance
    for _ in range(domain.optical_blur):
        image = _blur_axis(_blur_axis(image, 0), 1)
    image = image * np.array(domain.optical_gain, dtype=np.float32) + np.array(domain.optical_offset, dtype=np.float32)
    if domain.optical_noise > 0:
        noise = np.stack([_grain(rehash(white, 80 + channel)) for channel in range(3)], axis=-1)
        image = image + np.float32(domain.optical_noise) * noise
    return np.clip(image + np.float32(0.5), 0.0, 255.0).astype(np.uint8)
