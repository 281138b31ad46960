"""Our clouds against those of an independent package: the same composition, comparable statistics.

Skipped, with the reason, where `satellite-cloud-generator` is not installed.
"""

import random
import sys

import numpy as np
import pytest
import torch

from mmovseg.config import LazyCall, instantiate
from mmovseg.data.clouds import COVERED_ALPHA, CloudField, CloudSynthesizer
from mmovseg.data.clouds_package import PackageClouds
from mmovseg.errors import UserError

KINDS = ("thin", "thick", "varied")
NUMBERS = range(40)


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip(
        "satellite_cloud_generator", reason="satellite-cloud-generator is not installed (optional)"
    )


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    coarse = rng.uniform(20, 150, (8, 8, 3))
    return (np.kron(coarse, np.ones((8, 8, 1))) + rng.normal(0, 3, (64, 64, 3))).clip(0, 255).astype(np.uint8)


def statistics(clouds, image):
    """Means over many clouds: cover, its spread, opacity under the thickest, brightness there, strongest shadow."""
    covers, peaks, bright, shadows = [], [], [], []
    for number in NUMBERS:
        clouded, alpha, shadow = clouds(image, number)
        covers.append((alpha > COVERED_ALPHA).mean())
        peaks.append(alpha.max())
        shadows.append(shadow.max())
        if alpha.max() > 0.9:
            bright.append(clouded[alpha > 0.9].mean() / 255)
    return {
        "cover": np.mean(covers),
        "spread": np.std(covers),
        "peak": np.mean(peaks),
        "brightness": np.mean(bright) if bright else None,
        "shadow": np.mean(shadows),
    }


def test_without_the_package_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "satellite_cloud_generator", None)
    with pytest.raises(UserError, match="install it with: pip install satellite-cloud-generator"):
        PackageClouds()


def test_wrong_options_are_named(package):
    with pytest.raises(UserError, match="'fog'.*thin, thick, varied"):
        PackageClouds(kind="fog")
    with pytest.raises(UserError, match="no option 'hue'"):
        PackageClouds(options={"hue": 1})


@pytest.mark.parametrize("effects", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides_and_no_global_state_moves(package, image, kind, effects):
    clouds = instantiate(LazyCall(PackageClouds)(kind=kind, effects=effects))
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    once, again, other = clouds(image, 4), clouds(image, 4), clouds(image, 5)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    torch.manual_seed(77)
    for left, middle, right in zip(once, again, clouds(image, np.random.default_rng([0, 4])), strict=True):
        np.testing.assert_array_equal(left, middle)
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(once[1], other[1])
    assert not np.array_equal(once[1], PackageClouds(kind=kind, effects=effects, seed=1)(image, 4)[1])


@pytest.mark.parametrize("effects", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (33, 97), (7, 5), (16, 200)])
def test_ranges_shapes_types(package, size, effects):
    image = np.full((*size, 3), 80, np.uint8)
    for given in (image, image.astype(np.float32)):
        clouded, alpha, shadow = PackageClouds(kind="thick", effects=effects)(given, 1)
        assert clouded.shape == given.shape and clouded.dtype == given.dtype
        assert alpha.shape == shadow.shape == size and alpha.dtype == shadow.dtype == np.float32
        assert 0 <= alpha.min() < alpha.max() <= 1 and 0 <= shadow.min() and shadow.max() < 1
    assert not PackageClouds(shadow=False)(image, 1)[2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_our_composition_is_that_of_the_package(package, image, kind):
    clouds = PackageClouds(kind=kind, effects=False)
    for number in range(5):
        field = clouds.field(64, 64, number)
        seed = int(np.random.default_rng([0, number]).integers(2**63))
        torch.manual_seed(seed)
        options = dict(clouds._options, channel_offset=0, channel_magnitude_shift=0.0, blur_scaling=0.0)
        theirs, alpha, shadow = package.add_cloud_and_shadow(
            torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255)),
            return_cloud=True,
            **dict(options, cloud_color=False),
        )
        np.testing.assert_allclose(field.alpha, alpha[0, 0].numpy(), atol=1e-6)
        np.testing.assert_allclose(field.shadow, shadow[0, 0].numpy(), atol=1e-6)
        ours = field.apply(image.astype(np.float32))
        np.testing.assert_allclose(ours, theirs[0].numpy().transpose(1, 2, 0) * 255, atol=0.01)


@pytest.mark.parametrize("effects", [False, True])
def test_the_package_leaves_clear_pixels_alone_as_we_do(package, image, effects):
    clear = 0
    for clouds in (PackageClouds(kind="thick", effects=effects), CloudSynthesizer(kind="thick")):
        for number in range(10):
            clouded, alpha, shadow = clouds(image, number)
            free = (alpha == 0) & (shadow == 0)
            clear += free.sum()
            assert np.abs(clouded[free].astype(int) - image[free]).max(initial=0) <= (1 if effects else 0)
    assert clear > 500


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_comparable(package, image, kind):
    ours = statistics(CloudSynthesizer(kind=kind), image)
    theirs = statistics(PackageClouds(kind=kind), image)
    assert ours["shadow"] == pytest.approx(theirs["shadow"], abs=0.2)
    if kind == "thin":  # veils: the ground shows through everywhere
        assert max(ours["peak"], theirs["peak"]) < 0.8 and ours["brightness"] is theirs["brightness"] is None
        return
    assert ours["cover"] == pytest.approx(theirs["cover"], abs=0.2)
    assert ours["brightness"] == pytest.approx(theirs["brightness"], abs=0.1) and ours["brightness"] > 0.8
    if kind == "thick":
        assert min(ours["peak"], theirs["peak"]) > 0.95
    else:
        assert min(ours["spread"], theirs["spread"]) > 0.2


def test_features_have_comparable_size(package):
    def correlation_px(alpha):
        """Shift at which the correlation of the mask with itself falls below one half."""
        centred = alpha - alpha.mean()
        spectrum = np.abs(np.fft.fft2(centred)) ** 2
        correlation = np.fft.ifft2(spectrum).real[0, :32]
        return int(np.argmax(correlation < 0.5 * correlation[0]))

    sizes = [
        np.median([correlation_px(clouds.field(128, 128, number).alpha) for number in range(20)])
        for clouds in (CloudSynthesizer(kind="thick", coverage=0.5), PackageClouds(kind="thick"))
    ]
    assert all(3 <= size <= 25 for size in sizes) and 1 / 3 <= sizes[0] / sizes[1] <= 3


def test_fields_can_be_kept_and_reused(package, image, tmp_path):
    field = PackageClouds(kind="thick").field(64, 64, 2)
    field.save(tmp_path / "cloud.npz")
    np.testing.assert_array_equal(CloudField.load(tmp_path / "cloud.npz").apply(image), field.apply(image))
