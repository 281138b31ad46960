"""Random crops resized by a cubic filter: sizes, ranges, the same for both rasters, and rasters with gaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from torch import from_numpy

from mmovseg.data.transforms import CubicResizeTransform, JointSample, RandomResizedCrop
from mmovseg.errors import UserError


def crop(**options):
    return RandomResizedCrop(**({"size": 24} | options))


@pytest.mark.parametrize("shape", [(40, 60), (64, 64), (90, 30)])
def test_windows_keep_to_area_and_proportion(shape):
    rng, areas, ratios = np.random.default_rng(0), [], []
    for _ in range(300):
        height, width = crop()._window(*shape, rng)[2:]
        areas.append(height * width / (shape[0] * shape[1]))
        ratios.append(width / height)
    assert 0.17 < min(areas) < 0.3 and max(areas) <= 1.0
    assert min(ratios) > 0.68 and max(ratios) < 1.45 and np.std(ratios) > 0.05


def test_wide_and_tall_windows_are_equally_likely():
    rng = np.random.default_rng(0)
    ratios = [(width / height) for _, _, height, width in (crop()._window(500, 500, rng) for _ in range(3000))]
    assert abs(np.log(ratios).mean()) < 0.012, "0.028 if the proportion itself were uniform"


def test_a_long_raster_is_cut_in_the_middle():
    assert crop(scale=(1.0, 1.0))._window(20, 200, np.random.default_rng(0)) == (0, 86, 20, 27)
    assert crop(scale=(1.0, 1.0))._window(200, 20, np.random.default_rng(0)) == (86, 0, 27, 20)


def joint(rng_seed, **arrays):
    return JointSample(rng=np.random.default_rng(rng_seed), **arrays)


def test_both_rasters_of_a_pair_show_the_same_window():
    ramp = np.add.outer(np.arange(50.0), 2 * np.arange(60.0)).astype(np.float32)
    optical, sar = np.repeat(ramp[:, :, None], 3, axis=2).astype(np.uint8), ramp[:, :, None]
    for seed in range(8):
        sample = joint(seed, optical=optical.copy(), sar=sar.copy())
        sample.apply_augmentations([crop()])
        assert sample.optical.shape == (24, 24, 3) and sample.optical.dtype == np.uint8
        np.testing.assert_allclose(sample.optical[:, :, 0], sample.sar[:, :, 0], atol=0.6)
        assert sample.optical_valid.all() and sample.sar_valid.all()


def test_the_filter_is_cubic_and_stays_in_range():
    rng = np.random.default_rng(0)
    image = rng.uniform(-25, 5, (17, 23, 2)).astype(np.float32)
    image[0, 0], image[16, 22] = -60.0, 30.0
    batch = from_numpy(image.transpose(2, 0, 1))[None]
    expected = F.interpolate(batch, size=(31, 29), mode="bicubic", align_corners=False)[0].permute(1, 2, 0).numpy()
    moved = CubicResizeTransform(17, 23, 31, 29).apply_image(image)
    assert (expected > 30).any() or (expected < -60).any(), "the plain filter overshoots here"
    np.testing.assert_allclose(moved, np.clip(expected, -60, 30), atol=1e-4)
    smooth = CubicResizeTransform(17, 23, 8, 9, antialias=True).apply_image(image)
    assert smooth.std() < CubicResizeTransform(17, 23, 8, 9).apply_image(image).std()


def test_upsampling_agrees_with_another_library_within_its_choice_of_filter():
    """Pillow's cubic filter has a = -0.5, so smooth images agree and rough ones do not."""
    y, x = np.mgrid[0:20, 0:20]
    image = (120 + 60 * np.sin(x / 5) + 40 * np.cos(y / 6)).astype(np.float32)
    theirs = np.array(Image.fromarray(image).resize((30, 30), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(
        CubicResizeTransform(20, 20, 30, 30).apply_image(image)[3:-3, 3:-3], theirs[3:-3, 3:-3], atol=1.0
    )


def test_gaps_do_not_spread():
    optical = np.full((40, 40, 3), 200, dtype=np.uint8)
    valid = np.ones((40, 40), dtype=bool)
    valid[10:20, 12:18] = False
    optical[~valid] = 0
    sample = joint(3, optical=optical, optical_valid=valid)
    sample.apply_augmentations([crop(scale=(0.8, 1.0))])
    assert 0 < (~sample.optical_valid).sum() < 200
    assert (sample.optical[sample.optical_valid] == 200).all() and (sample.optical[~sample.optical_valid] == 0).all()


def test_around_gaps_the_filter_is_linear():
    sar = np.random.default_rng(0).normal(-12, 5, (20, 20, 1)).astype(np.float32)
    valid = np.ones((20, 20), dtype=bool)
    valid[5:9, 6:12] = False
    sample = joint(0, sar=sar, sar_valid=valid)
    sample.apply_augmentations([crop(scale=(1.0, 1.0), ratio=(1.0, 1.0))])

    def resized(array):
        batch = from_numpy(array.astype(np.float32))[None, None]
        return F.interpolate(batch, size=(24, 24), mode="bilinear", align_corners=False)[0, 0].numpy()

    weights = resized(valid)
    expected = resized(np.where(valid, sar[:, :, 0], 0)) / np.maximum(weights, 1e-3)
    assert 0 < (~sample.sar_valid).sum() and (sample.sar_valid & (weights < 1)).any(), "some mix data and gap"
    np.testing.assert_allclose(sample.sar[sample.sar_valid][:, 0], expected[sample.sar_valid], atol=1e-3)


def test_a_whole_raster_of_the_right_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    sample = joint(0, optical=image.copy())
    sample.apply_augmentations([crop(scale=(1.0, 1.0), ratio=(1.0, 1.0))])
    np.testing.assert_array_equal(sample.optical, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size of at least 1 pixel, got 0"),
        ({"scale": (0.5, 1.2)}, r"as scale, got \(0.5, 1.2\)"),
        ({"scale": (0.0, 1.0)}, "as scale"),
        ({"ratio": (2.0, 1.0)}, r"as ratio, got \(2.0, 1.0\)"),
    ],
)
def test_bad_ranges_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        crop(**options)
