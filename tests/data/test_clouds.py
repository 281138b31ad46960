"""Synthetic clouds: seeds, coverage, opacity, and what is left untouched."""

import numpy as np
import pytest

from mmovseg.data.clouds import CLOUD_KINDS, CloudSynthesizer
from mmovseg.errors import UserError

KINDS = [kind for kind in CLOUD_KINDS if kind != "clear"]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(20, 150, (48, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides(image, kind):
    clouds = CloudSynthesizer(kind=kind)
    once, again, other = clouds(image, 4), clouds(image, 4), clouds(image, 5)
    for left, right in zip(once, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(once[1], other[1])
    assert not np.array_equal(once[1], CloudSynthesizer(kind=kind, seed=1)(image, 4)[1])
    from_generator = clouds(image, np.random.default_rng([0, 4]))
    np.testing.assert_array_equal(from_generator[1], once[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coverage", [0.1, 0.35, 0.7, 1.0])
def test_coverage_is_reached(kind, coverage):
    clouds = CloudSynthesizer(kind=kind, coverage=coverage)
    for seed in range(5):
        assert clouds.field(50, 70, seed).coverage == pytest.approx(coverage, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_opacity_grows_with_coverage(kind):
    fields = [CloudSynthesizer(kind=kind, coverage=c).field(40, 40, 7).alpha for c in (0.05, 0.3, 0.6, 0.95)]
    for less, more in zip(fields, fields[1:], strict=False):
        assert (more >= less - 1e-6).all() and more.mean() > less.mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (33, 97), (7, 5)])
def test_ranges_shapes_types(kind, size):
    for seed in range(8):
        field = CloudSynthesizer(kind=kind).field(*size, seed)
        assert field.alpha.shape == field.shadow.shape == size and field.color.shape == (*size, 3)
        assert field.alpha.dtype == field.shadow.dtype == field.color.dtype == np.float32
        assert 0 <= field.alpha.min() and field.alpha.max() <= 1
        assert 0 <= field.shadow.min() and field.shadow.max() < 1
        assert 100 < field.color.min() and field.color.max() <= 255


def test_untouched_where_clear_and_sunlit(image):
    clouds = CloudSynthesizer(kind="thick", coverage=0.3)
    untouched = 0
    for seed in range(10):
        clouded, alpha, shadow = clouds(image, seed)
        free = (alpha == 0) & (shadow == 0)
        untouched += free.sum()
        np.testing.assert_array_equal(clouded[free], image[free])
        assert (clouded[alpha > 0.99] > 150).all()
    assert untouched > 1000


def test_clear_sky_is_the_image(image):
    clouded, alpha, shadow = CloudSynthesizer(kind="clear")(image, 3)
    np.testing.assert_array_equal(clouded, image)
    assert not alpha.any() and not shadow.any()
    with pytest.raises(UserError, match="coverage=0.5"):
        CloudSynthesizer(kind="clear", coverage=0.5)


def test_probability_leaves_images_clear_and_the_others_as_they_were():
    always, sometimes = CloudSynthesizer(kind="thick"), CloudSynthesizer(kind="thick", prob=0.3)
    alphas = [sometimes.field(16, 16, seed).alpha for seed in range(200)]
    clouded = [seed for seed, alpha in enumerate(alphas) if alpha.any()]
    assert 40 <= len(clouded) <= 80
    np.testing.assert_array_equal(alphas[clouded[0]], always.field(16, 16, clouded[0]).alpha)
    with pytest.raises(UserError, match="prob.*got 2"):
        CloudSynthesizer(prob=2)


def test_varied_spans_haze_to_overcast():
    fields = [CloudSynthesizer().field(64, 64, seed) for seed in range(150)]
    coverage = np.array([field.coverage for field in fields])
    alpha = np.stack([field.alpha for field in fields])
    assert coverage.mean() == pytest.approx(0.55, abs=0.06)
    assert coverage.min() < 0.15 and coverage.max() > 0.95
    assert alpha.max() > 0.99 and (alpha == 0).mean() > 0.03
    assert ((alpha > 0.1) & (alpha < 0.5)).mean() > 0.1


def test_cloud_is_not_one_colour_and_bluish_where_thin():
    field = CloudSynthesizer(coverage=0.6).field(64, 64, 1)
    assert field.color[..., 2].std() > 3
    assert (field.color[..., 2] >= field.color[..., 0]).all()
    thin = field.alpha < 0.5
    excess = field.color[..., 2] / field.color[..., 0]
    assert excess[thin].mean() > excess[~thin].mean()


def test_shadow_is_the_cloud_displaced():
    field = CloudSynthesizer(kind="thick", coverage=0.3).field(96, 96, 2)
    best = max(
        ((dy, dx) for dy in range(-20, 21) for dx in range(-20, 21)),
        key=lambda d: float((np.roll(field.alpha, d, (0, 1))[20:-20, 20:-20] * field.shadow[20:-20, 20:-20]).sum()),
    )
    assert np.hypot(*best) > 4
    assert CloudSynthesizer(kind="thick", shadow=False).field(32, 32, 2).shadow.max() == 0


def test_one_cloud_over_many_images(image):
    field = CloudSynthesizer(kind="thick").field(48, 64, 0)
    first, second = field.apply(image), field.apply(255 - image)
    opaque = field.alpha > 0.96
    assert first.dtype == np.uint8 and opaque.any()
    assert np.abs(first[opaque].astype(int) - second[opaque]).max() <= 11
    exact = field.apply(image.astype(np.float32))
    assert exact.dtype == np.float32
    np.testing.assert_array_equal(np.rint(exact), first)
    with pytest.raises(ValueError, match="48"):
        field.apply(image[:10])


def test_wrong_options_are_named():
    with pytest.raises(UserError, match="'fog'.*varied"):
        CloudSynthesizer(kind="fog")
    with pytest.raises(UserError, match=r"coverage.*1\.5"):
        CloudSynthesizer(coverage=1.5)
    with pytest.raises(UserError, match=r"coverage.*\(0\.9, 0\.1\)"):
        CloudSynthesizer(coverage=(0.9, 0.1))
