"""The radar: mean backscatter of the ground, building geometry, speckle, and the unit of the raster.

Mean sigma nought comes from tables per class, band and polarisation. Buildings add layover towards the sensor, double
bounce at the foot of walls that face it, and radar shadow behind. Speckle is multiplicative: the mean of `looks`
independent exponential values per pixel and polarisation. P polarisations, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmovseg.data.miniearth.domain import Domain
from mmovseg.data.miniearth.layout import Layout
from mmovseg.data.miniearth.noise import (
    Float,
    Hash,
    db_to_power,
    log2,
    power_to_db,
    rehash,
    spline_noise,
    stream_seed,
    unit,
)
from mmovseg.data.miniearth.regions import (
    DOUBLE_BOUNCE_DB,
    FARMLAND,
    FOREST,
    ROOF_DB,
    RUBBLE_DB,
    SIGMA0_DB,
    WALL_DB,
    WATER,
    RegionTable,
)
from mmovseg.data.miniearth.relief import cast_shadow, lay_over, wall_foot
from mmovseg.data.sar import AMPLITUDE8_TOP_DB

_AMPLITUDE8_GAIN = 255.0 / 10.0 ** (AMPLITUDE8_TOP_DB / 20.0)
_INCIDENCE_SLOPE_DB = (-0.16, -0.12, -0.11, -0.05, -0.05, -0.18, -0.30)
_TEXTURE_DB = (0.7, 0.7, 0.4, 0.6, 0.9, 0.4, 0.35)
_MOISTURE_DB = (0.9, 0.6, 0.5, 0.2, 0.3, 0.2, 0.9)
# SAR of the time-gap domain is this far away in the growth of crops and this many metres in the water level.
_GAP_LEVEL_M = 7.0
_RUBBLE_TEXTURE_DB = 1.6


@dataclass(frozen=True)
class Aftermath:
    """What an event left of the buildings, every array (H, W).

    height_m: of what stands. rubble: bool, where debris lies instead of a roof. walls: factor on the echoes of walls,
    1 where they are as before. state: uint8, 0 no building, 1 intact, 2 damaged, 3 destroyed, on the ground plans
    before the event.
    """

    height_m: Float
    rubble: NDArray[np.bool_]
    walls: Float
    state: NDArray[np.uint8]


def look_direction(domain: Domain) -> tuple[float, float]:
    """Return the look direction as (down, right) in the image, away from the sensor."""
    angle = math.radians(domain.look_direction_deg)
    return (-math.cos(angle), math.sin(angle))


def _radar_label(layout: Layout, domain: Domain) -> NDArray[np.uint8]:
    """Return the ground cover at the time of the SAR image: the label, but for another water level."""
    if domain.time_gap == 0:
        return layout.label
    label = layout.label.copy()
    drained = (label == WATER) & (layout.depth_m < _GAP_LEVEL_M * domain.time_gap)
    label[drained] = 0
    return label


def _ground_db(layout: Layout, label: NDArray[np.uint8], domain: Domain) -> Float:
    """Return mean sigma nought of the open ground in dB, (P, H, W)."""
    tables = SIGMA0_DB[domain.band]
    tilt = (domain.incidence_deg - 38.0) * np.array(_INCIDENCE_SLOPE_DB, dtype=np.float32)
    shared = np.array(_TEXTURE_DB, dtype=np.float32)[label] * layout.middle
    shared += np.array(_MOISTURE_DB, dtype=np.float32)[label] * layout.coarse
    shared += np.where(label == FOREST, 0.8 * layout.fine, np.float32(0.0))
    shared[layout.apron] -= 3.0
    farm = np.flatnonzero(label == FARMLAND)
    parcel = layout.parcel.take(farm)
    growth = unit(rehash(parcel, 90)) * (1.0 - domain.time_gap) + unit(rehash(parcel, 91)) * domain.time_gap
    shared.flat[farm] += 5.0 * growth - 2.5
    district = unit(rehash(layout.key, 92)) * np.float32(2.4) - np.float32(1.2)
    shared += np.where((label == WATER) | (label == FARMLAND), np.float32(0.0), district)
    means = [np.array(tables[name], dtype=np.float32) + tilt for name in domain.polarizations]
    ground = np.stack([mean[label] + shared for mean in means])
    for number, name in enumerate(domain.polarizations):
        if name in ("VH", "HV"):
            ground[number].flat[farm] += 3.0 * unit(rehash(parcel, 93)) - 1.5
    return ground


def _add_buildings(power: Float, layout: Layout, domain: Domain, walls: Float | None = None) -> None:
    """Replace ground by roofs, and add layover, double bounce and shadow in place; power is linear (P, H, W)."""
    height, gsd_m = layout.height_m, domain.gsd_m
    built = height > 0
    if built.any():
        incidence = math.radians(domain.incidence_deg)
        direction = look_direction(domain)
        shadow = cast_shadow(height, direction, math.tan(incidence), gsd_m)
        echoes = lay_over(height, direction, 1.0 / math.tan(incidence), gsd_m)
        foot = wall_foot(height, direction)
        # walls run along the street direction or across it; the one nearer to a right angle with the look counts
        along = np.abs(layout.cos * np.float32(direction[0]) + layout.sin * np.float32(direction[1]))
        across = np.abs(layout.cos * np.float32(direction[1]) - layout.sin * np.float32(direction[0]))
        facing = np.maximum(along, across)
        facing = facing * facing
        facing = facing * facing * facing
        material = 0.4 + 1.2 * unit(rehash(layout.parcel, 94))
        wall = material if walls is None else material * walls
        for number, name in enumerate(domain.polarizations):
            layer = power[number]
            layer[built] = 10.0 ** (ROOF_DB[name] / 10.0) * material[built]
            layer[shadow] *= 0.06
            layer += echoes * wall * np.float32(10.0 ** (WALL_DB[name] / 10.0) * 0.5)
            # a wall seen at an angle still returns some energy; cross polarisation keeps more of it
            spread = facing if name in ("VV", "HH") else 0.5 + 0.5 * facing
            bounce = (0.12 + 0.88 * spread) * wall * np.float32(10.0 ** (DOUBLE_BOUNCE_DB[name] / 10.0))
            layer[foot] += bounce[foot]


def _pile_rubble(power: Float, layout: Layout, domain: Domain, rubble: NDArray[np.bool_]) -> None:
    """Replace the ground by debris, in place: rough, so bright in cross polarisation too, and uneven."""
    texture = db_to_power(np.float32(_RUBBLE_TEXTURE_DB) * layout.fine[rubble])
    for number, name in enumerate(domain.polarizations):
        power[number, rubble] = np.float32(10.0 ** (RUBBLE_DB[name] / 10.0)) * texture


def mean_power(layout: Layout, table: RegionTable, domain: Domain, aftermath: Aftermath | None = None) -> Float:
    """Return the mean linear sigma nought in the radar's view, (P, H, W), before misregistration and speckle.

    Args:
        layout: the ground.
        table: of its region.
        domain: the radar.
        aftermath: what stands of the buildings when the radar looks; None = all that the layout says.
    """
    label = _radar_label(layout, domain)
    power = db_to_power(_ground_db(layout, label, domain))
    forest = np.where(label == FOREST, np.float32(7.0 * table.tree_cover), np.float32(0.0))
    edge = cast_shadow(forest, look_direction(domain), math.tan(math.radians(domain.incidence_deg)), domain.gsd_m)
    power[:, edge] *= 0.35
    if aftermath is None:
        _add_buildings(power, layout, domain)
    else:
        _pile_rubble(power, layout, domain, aftermath.rubble)
        _add_buildings(power, replace(layout, height_m=aftermath.height_m), domain, aftermath.walls)
    return power


def misregister(power: Float, layout: Layout, domain: Domain, seed: int) -> Float:
    """Move the radar image by a smooth field of at most `misregistration_px` per axis (bilinear), (P, H, W)."""
    bound = domain.misregistration_px
    if bound == 0:
        return power
    height, width = power.shape[1:]
    moved = []
    for axis, size in ((0, height), (1, width)):
        field = spline_noise(
            layout.y_m, layout.x_m, cell=420.0 * domain.gsd_m / 2.5, seed=stream_seed(seed, f"shift{axis}")
        )
        shift = np.clip(field * np.float32(0.6), -1.0, 1.0) * np.float32(bound)
        whole = np.floor(shift)
        start = np.arange(size)[:, None] if axis == 0 else np.arange(size)[None, :]
        first = np.clip(start + whole.astype(np.int64), 0, size - 1)
        moved.append((first, np.minimum(first + 1, size - 1), shift - whole))
    (y0, y1, fy), (x0, x1, fx) = moved
    corners = ((y0, x0, (1 - fy) * (1 - fx)), (y0, x1, (1 - fy) * fx), (y1, x0, fy * (1 - fx)), (y1, x1, fy * fx))
    flat = power.reshape(len(power), -1)
    result = np.zeros_like(flat)
    for y, x, weight in corners:
        index = (y * width + x).ravel()
        for number in range(len(flat)):
            result[number] += flat[number].take(index) * weight.ravel()
    return result.reshape(power.shape)


def _exponential(keys: Hash, looks: int) -> Float:
    """Return the mean of `looks` unit exponential values per hash: minus the logarithm of a product of uniform ones."""
    total = np.zeros(keys.shape, dtype=np.float32)
    done = 0
    while done < looks:
        product = unit(rehash(keys, done))
        done += 1
        # four uniform values of at least 2**-24 each stay far above the smallest float32
        while done < looks and done % 4:
            product = product * unit(rehash(keys, done))
            done += 1
        total -= log2(product)
    return total * np.float32(math.log(2.0) / looks)


def _cos_turn(turns: Float) -> Float:
    """Return the cosine of an angle in turns; error below 2e-6."""
    x = np.abs(turns - np.floor(turns + np.float32(0.5)))
    y = (np.float32(0.25) - x) * np.float32(2.0 * math.pi)
    square = y * y
    series = square * np.float32(1.0 / 362880.0) - np.float32(1.0 / 5040.0)
    for term in (1.0 / 120.0, -1.0 / 6.0, 1.0):
        series = series * square + np.float32(term)
    return series * y


def record(power: Float, domain: Domain, white: Hash) -> Float:
    """Return the SAR raster (H, W, channels) float32 in the domain's unit, with noise floor and speckle.

    Args:
        power: (P, H, W) mean linear sigma nought.
        domain: looks, unit, noise floor.
        white: one hash per pixel, (H, W).
    """
    power = power + np.float32(10.0 ** (domain.noise_floor_db / 10.0))
    channels: list[Float] = []
    for number, layer in enumerate(power):
        keys = rehash(white, 100 + number)
        seen = layer * _exponential(keys, domain.looks) if domain.speckle else layer
        if domain.value_type == "db":
            channels.append(power_to_db(seen))
        elif domain.value_type == "linear":
            channels.append(seen)
        elif domain.value_type == "amplitude8":
            channels.append(
                np.floor(np.clip(np.sqrt(seen) * np.float32(_AMPLITUDE8_GAIN), 0.0, 255.0) + np.float32(0.5))
            )
        else:
            phase = unit(rehash(keys, 99))
            amplitude = np.sqrt(seen)
            channels += [amplitude * _cos_turn(phase), amplitude * _cos_turn(phase - np.float32(0.25))]
    return np.stack(channels, axis=-1)
