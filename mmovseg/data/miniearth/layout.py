"""The ground itself: what covers every pixel, before any sensor looks at it.

`survey` composes districts, parcels, city blocks, rivers, lakes and natural patches into a `Layout`. Only the region
table, the seed and the position in metres decide; season and sensors come later. Lengths are metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmovseg.data.miniearth.districts import Districts, find_districts
from mmovseg.data.miniearth.noise import (
    Double,
    Float,
    Hash,
    fractal_normal,
    lattice_hash,
    rehash,
    spline_noise,
    spline_noise_gradient,
    stream_seed,
    unit,
)
from mmovseg.data.miniearth.regions import BARELAND, CITY, FARMLAND, FOREST, RANGELAND, ROAD, WATER, RegionTable

Mask = NDArray[np.bool_]

_RIVER_CELL_M = 400.0
_LAKE_CELL_M = 330.0
_STREET_M = 7.5
_AIRFIELD_SHARE = 0.25


@dataclass
class Layout:
    """A window of the ground, every array (H, W).

    `label`: class id. `key`: hash of the district. `cos`, `sin`: its street direction.
    `u`, `v`: metres along and across that direction from the district's centre.
    `parcel`: hash of the field (farmland), of the lot (city), else of the district.
    `edge_m`: distance to the edge of the field. `height_m`: height of buildings, 0 elsewhere.
    `roof_v`: -1 .. 1 across the roof of a building. `highway_m`: distance to the axis of a highway.
    `depth_m`: distance into the water from the shore, negative on land. `apron`: paved ground of airfields.
    `coarse`, `middle`, `fine`: noise of about 200 m, 30 m and 6 m, standard normal, that every sensor's texture shares.
    `y_m`, `x_m`: world coordinates of the rows (H,) and the columns (W,).
    """

    label: NDArray[np.uint8]
    key: Hash
    cos: Float
    sin: Float
    u: Float
    v: Float
    parcel: Hash
    edge_m: Float
    height_m: Float
    roof_v: Float
    highway_m: Float
    depth_m: Float
    apron: Mask
    coarse: Float
    middle: Float
    fine: Float
    y_m: Double
    x_m: Double


def _water_depth(ys: Double, xs: Double, coarse: Float, table: RegionTable, seed: int) -> Float:
    """Return metres from the shore into rivers and lakes (negative on land), from level sets of smooth noise."""
    bend = spline_noise(ys, xs, cell=90.0, seed=stream_seed(seed, "bend"))
    level, dy, dx = spline_noise_gradient(ys, xs, cell=_RIVER_CELL_M, seed=stream_seed(seed, "river"))
    slope = np.sqrt(dy * dy + dx * dx) + np.float32(0.25 / _RIVER_CELL_M)
    width = np.float32(table.river_m) * (1.0 + 0.25 * np.clip(coarse, -2.0, 2.0))
    river = 0.5 * width - np.abs(level + np.float32(0.045) * bend) / slope
    lake = spline_noise(ys, xs, cell=_LAKE_CELL_M, seed=stream_seed(seed, "lake")) + np.float32(0.16) * bend
    return np.maximum(river, (lake - np.float32(table.lake_level)) * np.float32(0.55 * _LAKE_CELL_M))


def _cover(districts: Districts, middle: Float, coarse: Float) -> NDArray[np.uint8]:
    """Return the land use with ragged borders between natural uses and with copses, clearings and bare patches."""
    kind, other = districts.kind, districts.other
    natural = (kind == BARELAND) | (kind == RANGELAND) | (kind == FOREST)
    natural_other = (other == BARELAND) | (other == RANGELAND) | (other == FOREST)
    ragged = natural & natural_other & (districts.border_m < 14.0 * middle)
    cover = np.where(ragged, other, kind)
    patch = middle + 0.5 * coarse
    cover[(kind == RANGELAND) & (patch > 1.9)] = FOREST
    cover[(kind == RANGELAND) & (patch < -2.1)] = BARELAND
    cover[(kind == FOREST) & (patch < -1.8)] = RANGELAND
    cover[(kind == BARELAND) & (patch > 1.9)] = RANGELAND
    cover[(kind == BARELAND) & (patch < -2.4)] = FOREST
    return cover


def _fields(u: Float, v: Float, key: Hash, table: RegionTable) -> tuple[Hash, Float]:
    """Cut farmland into rows of rectangular fields; return the field's hash and the distance to its edge in metres."""
    low, high = table.parcel_m
    depth = low + (high - low) * unit(rehash(key, 40))
    row = np.floor(u / depth)
    row_key = lattice_hash(row.astype(np.int64), key.astype(np.int64), 11)
    length = (low + (high - low) * unit(rehash(row_key, 0))) * np.float32(1.5)
    shifted = v + length * unit(rehash(row_key, 1))
    column = np.floor(shifted / length)
    field = lattice_hash(column.astype(np.int64), row_key.astype(np.int64), 12)
    in_row, in_column = u - row * depth, shifted - column * length
    # half of the fields are cut once more, along the row
    cut = (0.3 + 0.4 * unit(rehash(field, 0))) * length
    is_cut = unit(rehash(field, 1)) < 0.5
    beyond = is_cut & (in_column > cut)
    edge = np.minimum(np.minimum(in_row, depth - in_row), np.minimum(in_column, length - in_column))
    edge = np.where(is_cut, np.minimum(edge, np.abs(in_column - cut)), edge)
    return np.where(beyond, rehash(field, 2), field), edge


@dataclass
class _Blocks:
    street: Mask
    lot: Hash
    height_m: Float
    roof_v: Float


def _city_blocks(u: Float, v: Float, key: Hash, table: RegionTable) -> _Blocks:
    """Cut a city district into blocks by streets, blocks into lots, and put a building on most lots."""
    low, high = table.block_m
    size_u = low + (high - low) * unit(rehash(key, 50))
    size_v = low + (high - low) * unit(rehash(key, 51))
    street_m = np.float32(_STREET_M) + 3.0 * unit(rehash(key, 52))
    row = np.floor(u / size_u)
    shifted = v + size_v * unit(rehash(lattice_hash(row.astype(np.int64), key.astype(np.int64), 13), 0)) * 0.4
    column = np.floor(shifted / size_v)
    block = lattice_hash(column.astype(np.int64) + (row.astype(np.int64) << 12), key.astype(np.int64), 14)
    in_u, in_v = u - row * size_u - street_m, shifted - column * size_v - street_m
    street = (in_u < 0) | (in_v < 0)
    inner_u, inner_v = size_u - street_m, size_v - street_m
    industrial = unit(rehash(key, 53)) < 0.25
    lot_low, lot_high = table.lot_m
    target = (lot_low + (lot_high - lot_low) * unit(rehash(block, 0))) * np.where(industrial, 1.9, 1.0).astype(
        np.float32
    )
    count_u, count_v = np.maximum(np.floor(inner_u / target), 1.0), np.maximum(np.floor(inner_v / target), 1.0)
    lot_u, lot_v = inner_u / count_u, inner_v / count_v
    number_u, number_v = np.floor(in_u / lot_u), np.floor(in_v / lot_v)
    lot = lattice_hash((number_u * 64 + number_v).astype(np.int64), block.astype(np.int64), 15)
    place_u, place_v = in_u - number_u * lot_u, in_v - number_v * lot_v
    margins = [(0.06 + 0.20 * unit(rehash(lot, index))) for index in range(4)]
    inside = (place_u > margins[0] * lot_u) & (place_u < (1 - margins[1]) * lot_u)
    inside &= (place_v > margins[2] * lot_v) & (place_v < (1 - margins[3]) * lot_v)
    built = inside & ~street & (unit(rehash(lot, 4)) < 0.86)
    tall = np.where(unit(rehash(key, 54)) < 0.3, 11.0, 5.0).astype(np.float32)
    height = tall * (0.8 + 0.6 * unit(rehash(lot, 5)))
    span = lot_v * (1 - margins[3] - margins[2])
    roof_v = (place_v - margins[2] * lot_v) / np.maximum(span, 1.0) * 2.0 - 1.0
    return _Blocks(street, lot, np.where(built, height, np.float32(0.0)), roof_v)


def survey(ys: Double, xs: Double, table: RegionTable, seed: int) -> Layout:
    """Return the ground cover of a window.

    Args:
        ys: (H,) world coordinates of the pixel rows in metres, ascending southward.
        xs: (W,) the same for the columns, ascending eastward.
        table: palette and morphology of the region.
        seed: world seed.
    """
    coarse = fractal_normal(ys, xs, cell=200.0, octaves=2, seed=stream_seed(seed, "coarse"))
    middle = fractal_normal(ys, xs, cell=42.0, octaves=3, seed=stream_seed(seed, "middle"), persistence=0.6)
    fine = spline_noise(ys, xs, cell=table.crown_m * 0.72, seed=stream_seed(seed, "fine"))
    districts = find_districts(ys, xs, table, seed)
    depth = _water_depth(ys, xs, coarse, table, seed)
    label = _cover(districts, middle, coarse)
    u = districts.cos * districts.dy + districts.sin * districts.dx
    v = districts.cos * districts.dx - districts.sin * districts.dy
    layout = Layout(
        label=label,
        key=districts.key,
        cos=districts.cos,
        sin=districts.sin,
        u=u,
        v=v,
        parcel=districts.key.copy(),
        edge_m=np.full(label.shape, 1e3, dtype=np.float32),
        height_m=np.zeros(label.shape, dtype=np.float32),
        roof_v=np.zeros(label.shape, dtype=np.float32),
        highway_m=np.where(districts.highway, districts.highway_m, np.float32(1e3)),
        depth_m=depth,
        apron=np.zeros(label.shape, dtype=np.bool_),
        coarse=coarse,
        middle=middle,
        fine=fine,
        y_m=ys,
        x_m=xs,
    )
    _put_fields(layout, table)
    _put_city(layout, table)
    _put_aprons(layout, districts)
    _put_roads_and_water(layout, districts)
    return layout


def _put_fields(layout: Layout, table: RegionTable) -> None:
    farm = np.flatnonzero(layout.label == FARMLAND)
    if farm.size:
        parcel, edge = _fields(layout.u.take(farm), layout.v.take(farm), layout.key.take(farm), table)
        layout.parcel.flat[farm] = parcel
        layout.edge_m.flat[farm] = edge


def _put_city(layout: Layout, table: RegionTable) -> None:
    city = np.flatnonzero(layout.label == CITY)
    if city.size:
        blocks = _city_blocks(layout.u.take(city), layout.v.take(city), layout.key.take(city), table)
        layout.parcel.flat[city] = blocks.lot
        layout.height_m.flat[city] = blocks.height_m
        layout.roof_v.flat[city] = blocks.roof_v
        layout.label.flat[city] = np.where(blocks.street, ROAD, CITY)


def _put_aprons(layout: Layout, districts: Districts) -> None:
    """Pave a rectangle around the centre of some bare districts; it stays bareland, aircraft stand on it."""
    airfield = (
        (districts.kind == BARELAND) & (layout.label == BARELAND) & (unit(rehash(layout.key, 60)) < _AIRFIELD_SHARE)
    )
    layout.apron = airfield & (np.abs(layout.u) < 34.0) & (np.abs(layout.v) < 66.0)


def _put_roads_and_water(layout: Layout, districts: Districts) -> None:
    """Lay lanes, then water over everything, then highways over all (bridges)."""
    label = layout.label
    label[districts.lane] = ROAD
    water = layout.depth_m > 0
    label[water] = WATER
    label[districts.highway] = ROAD
    ground = (label != CITY) | (districts.lane | water | districts.highway)
    layout.height_m[ground] = 0.0
    layout.apron &= label == BARELAND
    layout.edge_m[label != FARMLAND] = 1e3
