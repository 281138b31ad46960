"""Coordinate noise: seams, distribution, and the hand-written logarithm."""

from __future__ import annotations

import numpy as np
import pytest

from mmovseg.data.miniearth.noise import (
    exp2,
    fractal_noise,
    lattice_hash,
    log2,
    pixel_axis,
    rehash,
    spline_noise,
    spline_noise_gradient,
    stream_seed,
    unit,
)


@pytest.mark.parametrize("row, col", [(0, 0), (-77, 41), (123_456_789, -987_654_321)])
def test_window_equals_crop_of_larger_one(row, col):
    large = fractal_noise(row, col, 90, 110, cell=37.5, octaves=4, seed=3)
    small = fractal_noise(row + 13, col + 29, 40, 51, cell=37.5, octaves=4, seed=3)
    assert np.array_equal(large[13:53, 29:80], small)


def test_noise_is_nearly_uniform():
    noise = fractal_noise(0, 0, 1500, 1500, cell=24, octaves=3, seed=1)
    assert noise.dtype == np.float32
    assert noise.min() >= 0 and noise.max() <= 1
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert abs(float((noise > 1 - share).mean()) - share) < 0.05


def test_seeds_give_unrelated_noise():
    first, second = (fractal_noise(0, 0, 256, 256, cell=8, octaves=2, seed=seed) for seed in (0, 1))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.06


def test_streams_of_one_seed_differ():
    names = [stream_seed(7, name) for name in ("a", "b", "c")]
    assert len(set(names)) == 3
    assert stream_seed(7, "a") != stream_seed(8, "a")


def test_hash_is_uniform_and_uncorrelated():
    values = unit(lattice_hash(np.arange(-200, 200)[:, None], np.arange(-200, 200)[None, :], 5))
    assert 0 < values.min() and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(values[1:].ravel(), values[:-1].ravel())[0, 1]) < 0.01
    again = unit(rehash(lattice_hash(np.arange(-200, 200)[:, None], np.arange(-200, 200)[None, :], 5), 0))
    assert abs(np.corrcoef(values.ravel(), again.ravel())[0, 1]) < 0.01


def test_gradient_matches_differences():
    ys, xs = pixel_axis(10, 60), pixel_axis(-5, 60)
    value, down, right = spline_noise_gradient(ys, xs, cell=30.0, seed=2)
    assert np.array_equal(value, spline_noise(ys, xs, cell=30.0, seed=2))
    assert np.allclose(down[1:-1], (value[2:] - value[:-2]) / 2, atol=2e-3)
    assert np.allclose(right[:, 1:-1], (value[:, 2:] - value[:, :-2]) / 2, atol=2e-3)


def test_logarithm_and_power_are_accurate():
    values = np.geomspace(1e-20, 1e20, 20_001).astype(np.float32)
    exact = np.log2(values.astype(np.float64))
    assert np.abs(log2(values) - exact).max() < 1e-5
    powers = np.linspace(-60, 60, 20_001).astype(np.float32)
    assert np.abs(exp2(powers) / np.exp2(powers.astype(np.float64)) - 1).max() < 1e-5
