"""Scales and crops of segmentation recipes."""

import numpy as np
import pytest

from mmovseg.data.transforms import JointSample
from mmovseg.data.transforms.segmentation import BalancedCrop, UniformScale
from mmovseg.errors import UserError


def sample(label, seed=0):
    image = np.zeros((*label.shape, 3), dtype=np.uint8)
    return JointSample(rng=np.random.default_rng(seed), optical=image, sem_seg=label.astype(np.uint8))


def test_factors_are_uniform_and_start_from_the_base_size():
    label = np.zeros((40, 80), dtype=np.uint8)
    sides = []
    for seed in range(300):
        joint = sample(label, seed)
        joint.apply_augmentations([UniformScale(low=0.5, high=2.0, base_px=20)])
        sides.append(joint.height)
        assert abs(joint.width - 2 * joint.height) <= 1 and joint.sem_seg.shape == (joint.height, joint.width)
    assert min(sides) >= 10 and max(sides) <= 40
    assert np.mean(sides) == pytest.approx(25, abs=2.0)  # uniform in the logarithm: 21.6


def test_a_crop_avoids_windows_of_one_class_where_it_can():
    label = np.zeros((64, 64), dtype=np.uint8)
    label[:, :10] = 1
    shares = []
    for seed in range(40):
        joint = sample(label, seed)
        joint.apply_augmentations([BalancedCrop(size=16, max_share=0.75, tries=100)])
        shares.append(np.bincount(joint.sem_seg.ravel()).max() / joint.sem_seg.size)
    assert max(shares) <= 0.75


def test_a_crop_ends_where_no_window_is_mixed_and_ignores_255():
    joint = sample(np.full((32, 32), 255, dtype=np.uint8))
    joint.apply_augmentations([BalancedCrop(size=(8, 48))])
    assert (joint.height, joint.width) == (8, 32)


def test_a_crop_without_labels_is_an_ordinary_one():
    joint = JointSample(rng=np.random.default_rng(0), optical=np.zeros((32, 32, 3), dtype=np.uint8))
    joint.apply_augmentations([BalancedCrop(size=8)])
    assert (joint.height, joint.width) == (8, 8)


@pytest.mark.parametrize(
    "make",
    [lambda: UniformScale(2.0, 1.0), lambda: UniformScale(base_px=0), lambda: BalancedCrop(8, max_share=0.0)],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(UserError):
        make()
