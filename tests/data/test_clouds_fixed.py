"""Clouds from a file: nothing is lost, and one cloud fits images of any size."""

import numpy as np
import pytest

from mmovseg.config import LazyCall, instantiate
from mmovseg.data.clouds import CloudField, CloudSynthesizer
from mmovseg.data.clouds_fixed import FixedClouds
from mmovseg.errors import UserError


@pytest.fixture
def field():
    return CloudSynthesizer(kind="thick", coverage=0.4).field(48, 64, 3)


@pytest.fixture
def saved(field, tmp_path):
    field.save(tmp_path / "clouds" / "one.npz")
    return tmp_path / "clouds" / "one.npz"


def test_a_file_gives_the_cloud_back(field, saved):
    loaded = CloudField.load(saved)
    for name in ("alpha", "color", "shadow"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(field, name))
        assert getattr(loaded, name).dtype == np.float32
    assert [file.name for file in saved.parent.iterdir()] == ["one.npz"]


def test_files_that_are_no_cloud_are_refused(field, saved, tmp_path):
    with pytest.raises(UserError, match=r"\.png"):
        field.save(tmp_path / "one.png")
    with pytest.raises(UserError, match=r"none\.npz' does not exist"):
        CloudField.load(tmp_path / "none.npz")
    whole = saved.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + bytes(50) + whole[250:]):
        saved.write_bytes(content)
        with pytest.raises(UserError, match=r"one\.npz' is no \.npz with alpha"):
            CloudField.load(saved)
    np.savez(saved, alpha=field.alpha, color=field.color)
    with pytest.raises(UserError, match=r"one\.npz' is no \.npz with alpha"):
        CloudField.load(saved)
    np.savez(saved, alpha=np.array([print], dtype=object), color=field.color, shadow=field.shadow)
    with pytest.raises(UserError, match=r"one\.npz' is no \.npz with alpha"):
        CloudField.load(saved)
    np.savez(saved, alpha=field.alpha, color=field.color, shadow=field.shadow[1:])
    with pytest.raises(UserError, match=r"shadow \(47, 64\)"):
        CloudField.load(saved)


def test_every_image_of_a_size_wears_the_same_cloud(field, saved):
    clouds = instantiate(LazyCall(FixedClouds)(field=str(saved)))
    dark, bright = np.full((48, 64, 3), 20, np.uint8), np.full((48, 64, 3), 200, np.uint8)
    for image, rng in ((dark, 1), (bright, np.random.default_rng(5))):
        clouded, alpha, shadow = clouds(image, rng)
        np.testing.assert_array_equal(clouded, field.apply(image))
        np.testing.assert_array_equal(alpha, field.alpha)
        np.testing.assert_array_equal(shadow, field.shadow)


@pytest.mark.parametrize("size", [(96, 128), (24, 32), (33, 50)])
def test_a_resized_cloud_keeps_its_cover(field, size):
    image = np.full((*size, 3), 60.0, np.float32)
    clouded, alpha, shadow = FixedClouds(field=field)(image, 2)
    assert alpha.shape == shadow.shape == size and clouded.shape == image.shape
    assert alpha.min() >= 0 and alpha.max() <= field.alpha.max() and shadow.max() <= field.shadow.max()
    assert (alpha > 0.5).mean() == pytest.approx(field.coverage, abs=0.03)
    np.testing.assert_array_equal(clouded[(alpha == 0) & (shadow == 0)], 60.0)
    np.testing.assert_array_equal(alpha, FixedClouds(field=field)(image, 9)[1])


def test_a_window_is_cut_and_not_changed(field):
    clouds = FixedClouds(field=field, fit="crop")
    windows = [clouds.field(20, 30, number) for number in range(6)]
    np.testing.assert_array_equal(windows[0].alpha, clouds.field(20, 30, 0).alpha)
    assert len({window.alpha.tobytes() for window in windows}) > 1
    places = [
        (top, left)
        for top in range(29)
        for left in range(35)
        if np.array_equal(field.alpha[top : top + 20, left : left + 30], windows[1].alpha)
    ]
    assert len(places) == 1
    (top, left) = places[0]
    np.testing.assert_array_equal(field.color[top : top + 20, left : left + 30], windows[1].color)
    np.testing.assert_array_equal(field.shadow[top : top + 20, left : left + 30], windows[1].shadow)
    np.testing.assert_array_equal(clouds.field(20, 30).alpha, field.alpha[:20, :30])
    with pytest.raises(UserError, match="50x30 pixels .* cloud of 48x64"):
        clouds.field(50, 30, 0)
    with pytest.raises(UserError, match="fit='stretch'"):
        FixedClouds(field=field, fit="stretch")
