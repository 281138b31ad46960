"""Photometric augmentation: ranges, statistics, determinism."""

import numpy as np
import pytest

from mmovseg.data.sar import db_to_linear
from mmovseg.data.transforms import OpticalJitter, SarJitter
from mmovseg.errors import UserError


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(40, 200, (24, 31, 3)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_optical_keeps_type_and_range(image, dtype):
    jitter = OpticalJitter(brightness=120, contrast=0.9, saturation=0.9, hue_deg=90, season=0.5, prob=1.0)
    changed = jitter(image.astype(dtype), np.random.default_rng(0))
    assert changed.dtype == dtype and changed.shape == image.shape
    assert 0 <= changed.min() and changed.max() <= 255 and not np.array_equal(changed, image)


def test_optical_without_strength_changes_nothing(image):
    assert np.array_equal(OpticalJitter(prob=0.0)(image, np.random.default_rng(0)), image)
    none = OpticalJitter(brightness=0, contrast=0, saturation=0, hue_deg=0, season=0, prob=1.0)
    np.testing.assert_allclose(none(image, np.random.default_rng(0)), image, atol=1)


def test_optical_saturation_and_hue_leave_grey_alone():
    grey = np.repeat(np.random.default_rng(0).uniform(50, 200, (8, 8, 1)), 3, axis=2).astype(np.float32)
    jitter = OpticalJitter(brightness=0, contrast=0, saturation=0.9, hue_deg=180, prob=1.0)
    np.testing.assert_allclose(jitter(grey, np.random.default_rng(1)), grey, atol=0.3)


def test_optical_brightness_is_on_the_255_scale(image):
    jitter = OpticalJitter(brightness=30, contrast=0, saturation=0, hue_deg=0, prob=1.0)
    shifts = [
        float((jitter(image.astype(np.float32), np.random.default_rng(seed)) - image).mean()) for seed in range(40)
    ]
    assert max(map(abs, shifts)) <= 30.1 and max(shifts) > 15 and min(shifts) < -15


@pytest.mark.parametrize("jitter", [OpticalJitter(season=0.2), SarJitter()])
def test_same_generator_same_result(jitter, image):
    value = image.astype(np.float32) if isinstance(jitter, OpticalJitter) else -image.astype(np.float32) / 10
    for seed in range(5):
        once, again = (jitter(value, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("looks", [1.0, 4.0, 16.0])
def test_speckle_has_mean_one_and_variance_one_over_looks(looks):
    flat = np.full((300, 300, 2), -10.0, dtype=np.float32)
    noisy = SarJitter(looks=looks, gain_db=0.0, prob=1.0)(flat, np.random.default_rng(0))
    multiplier = db_to_linear(noisy) / db_to_linear(flat)
    assert noisy.dtype == np.float32
    assert multiplier.mean() == pytest.approx(1.0, abs=0.02)
    assert multiplier.var() == pytest.approx(1.0 / looks, rel=0.05)
    assert abs(np.corrcoef(multiplier[..., 0].ravel(), multiplier[..., 1].ravel())[0, 1]) < 0.02


def test_gain_is_one_offset_in_db_and_nan_stays():
    sar_db = np.random.default_rng(0).normal(-10, 3, (12, 12, 2)).astype(np.float32)
    sar_db[1, 2] = np.nan
    changed = SarJitter(looks=None, gain_db=2.0, prob=1.0)(sar_db, np.random.default_rng(3))
    offset = changed - sar_db
    assert np.isnan(changed[1, 2]).all() and np.nanstd(offset) < 1e-5 and 0 < abs(np.nanmean(offset)) <= 2


def test_looks_must_be_positive():
    with pytest.raises(UserError, match="got 0"):
        SarJitter(looks=0)
