"""The radar: speckle statistics, building geometry, units and channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmovseg.data.miniearth import Domain, render
from mmovseg.data.miniearth.layout import survey
from mmovseg.data.miniearth.noise import pixel_axis, stream_seed
from mmovseg.data.miniearth.radar import look_direction
from mmovseg.data.miniearth.regions import CITY, CLASS_NAMES, REGIONS, WATER
from mmovseg.data.miniearth.relief import cast_shadow, lay_over, reach_px, wall_foot
from mmovseg.data.sar import convert_sar

LINEAR = replace(Domain(), value_type="linear", misregistration_px=0.0)


def building() -> np.ndarray:
    height = np.zeros((41, 41), dtype=np.float32)
    height[16:25, 16:25] = 8.0
    return height


@pytest.mark.parametrize("looks", [1, 3, 4, 16])
def test_speckle_has_the_number_of_looks(looks):
    domain = replace(LINEAR, looks=looks)
    window = (1000, 2000, 190, 190)
    ratio = render(domain, *window).sar / render(replace(domain, speckle=False), *window).sar
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)
    assert 1 / ratio.var(axis=(0, 1)) == pytest.approx([looks, looks], rel=0.06)
    assert abs(np.corrcoef(ratio[..., 0].ravel(), ratio[..., 1].ravel())[0, 1]) < 0.03


def test_homogeneous_water_shows_the_number_of_looks():
    found = []
    for index in range(8):
        scene = render(LINEAR, 1500 * index, 0, 384, 384)
        for y in range(0, 384, 16):
            for x in range(0, 384, 16):
                patch = (slice(y, y + 16), slice(x, x + 16))
                if (scene.label[patch] == WATER).all() and scene.sar[patch].max() < 0.2:
                    values = scene.sar[patch][..., 0]
                    found.append(values.mean() ** 2 / values.var(ddof=1))
    assert len(found) > 40
    assert np.median(found) == pytest.approx(4.0, rel=0.12)


@pytest.mark.parametrize("azimuth, side", [(90.0, (20, 15)), (270.0, (20, 25)), (180.0, (15, 20)), (0.0, (25, 20))])
def test_double_bounce_layover_and_shadow_sides(azimuth, side):
    height, direction = building(), look_direction(replace(Domain(), look_direction_deg=azimuth))
    foot = wall_foot(height, direction)
    opposite = (40 - side[0], 40 - side[1])
    assert foot[side] and not foot[opposite]
    echoes = lay_over(height, direction, 1.0, 2.5)
    assert echoes[side] > 0 and echoes[opposite] == 0
    shadow = cast_shadow(height, direction, 1.0, 2.5)
    assert shadow[opposite] and not shadow[side]


def test_relief_reaches_no_farther_than_the_margin():
    height = np.zeros((61, 61), dtype=np.float32)
    height[30, 30] = 1000.0
    shadow = cast_shadow(height, (0.0, 1.0), 2.0, 2.5)
    assert np.nonzero(shadow)[1].max() == 30 + reach_px(2.5)


def test_bright_walls_face_the_sensor():
    brightness = {}
    ys = xs = pixel_axis(0, 600) * 2.5
    layout = survey(ys, xs, REGIONS["temperate"], stream_seed(0, "temperate"))
    built = layout.height_m > 0
    assert built.mean() > 0.01
    west = np.zeros_like(built)
    west[:, :-1] = built[:, 1:]
    east = np.zeros_like(built)
    east[:, 1:] = built[:, :-1]
    ground = ~built & (layout.label == CITY)
    west, east = west & ground & ~east, east & ground & ~west
    for azimuth in (90.0, 270.0):
        domain = replace(LINEAR, look_direction_deg=azimuth, speckle=False)
        sar = render(domain, 0, 0, 600, 600).sar[..., 0]
        brightness[azimuth] = float(sar[west].mean() / sar[east].mean())
    assert brightness[90.0] > 2
    assert brightness[270.0] < 0.5


def test_units_describe_the_same_image():
    window = (50, 80, 64, 64)
    db = render(replace(LINEAR, value_type="db"), *window).sar
    linear = render(LINEAR, *window).sar
    assert np.allclose(convert_sar(linear, unit_in="linear", unit_out="db"), db, atol=1e-3)
    amplitude = render(replace(LINEAR, value_type="amplitude8"), *window).sar
    assert np.array_equal(amplitude, np.rint(amplitude)) and amplitude.min() >= 0 and amplitude.max() <= 255
    bright = (amplitude > 20) & (amplitude < 255)
    assert np.allclose(convert_sar(amplitude, unit_in="amplitude8", unit_out="db")[bright], db[bright], atol=0.25)


def test_complex_power_is_single_look_power():
    single = replace(LINEAR, looks=1)
    window = (50, 80, 96, 96)
    values = render(replace(single, value_type="complex"), *window).sar
    power = values[..., 0::2] ** 2 + values[..., 1::2] ** 2
    assert np.allclose(power, render(single, *window).sar, rtol=1e-4)
    phase = np.arctan2(values[..., 1], values[..., 0])
    assert np.histogram(phase, bins=8, range=(-np.pi, np.pi))[0] / phase.size == pytest.approx([0.125] * 8, abs=0.02)


def test_channel_order_follows_the_domain():
    window = (0, 0, 64, 64)
    both = render(replace(Domain(), polarizations=("VH", "VV"), speckle=False), *window).sar
    usual = render(replace(Domain(), speckle=False), *window).sar
    assert np.array_equal(both[..., ::-1], usual)
    assert replace(Domain(), value_type="complex", looks=1).sar_channels == ("VV_I", "VV_Q", "VH_I", "VH_Q")


def test_mean_backscatter_is_ordered_like_the_ground():
    totals, counts = np.zeros(7), np.zeros(7)
    for index in range(6):
        scene = render("clean_sar", 5000 * index, 3000 * index, 256, 256)
        totals += np.bincount(scene.label.ravel(), weights=scene.sar[..., 0].ravel(), minlength=7)
        counts += np.bincount(scene.label.ravel(), minlength=7)
    mean = dict(zip(CLASS_NAMES, totals / counts, strict=True))
    assert mean["water"] < mean["road"] < mean["bareland"] < mean["rangeland"] < mean["forest"]
    assert abs(mean["rangeland"] - mean["farmland"]) < 1.5
    assert mean["city"] > mean["farmland"]


def test_time_gap_changes_sar_but_neither_label_nor_optical():
    window = (400, 900, 256, 256)
    now, later = render("default", *window), render("time_gap", *window)
    assert np.array_equal(now.label, later.label) and np.array_equal(now.optical, later.optical)
    farm = now.label == CLASS_NAMES.index("farmland")
    assert farm.any() and np.abs(now.sar - later.sar)[farm].mean() > 0.5


def test_misregistration_moves_sar_by_less_than_its_bound():
    exact = replace(Domain(), speckle=False, misregistration_px=0.0)
    window = (700, 100, 128, 128)
    still = render(exact, *window)
    moved = render(replace(exact, misregistration_px=0.5), *window)
    assert not np.array_equal(still.sar, moved.sar)
    low, high = still.sar.copy(), still.sar.copy()
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            shifted = np.roll(still.sar, (y, x), axis=(0, 1))
            low, high = np.minimum(low, shifted), np.maximum(high, shifted)
    inside = (slice(1, -1), slice(1, -1))
    assert (moved.sar >= low - 0.01)[inside].all() and (moved.sar <= high + 0.01)[inside].all()
