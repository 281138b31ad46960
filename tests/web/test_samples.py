"""Scenes of the page: the same pixels each time, under one cloud that grows."""

from __future__ import annotations

import numpy as np
import pytest

from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.miniearth.export import world_transform
from mmovseg.errors import UserError
from mmovseg.web.samples import Gallery


@pytest.fixture(scope="module")
def gallery():
    return Gallery(count=3, size=64)


def test_scenes_are_titled_and_show_what_the_small_model_never_saw_labels_of(gallery):
    assert len(gallery) == len(gallery.titles) == 3 and gallery.titles[0].startswith("Scene 1: ")
    for index, title in enumerate(gallery.titles):
        sample = gallery.sample(index, 0)
        assert sample.title == title
        for name in ("road", "water"):
            assert name in title and sample.truth(name) >= 0.015
        assert sample.truth("volcano") is None


def test_the_same_cloud_grows(gallery):
    clear = gallery.sample(1, 0)
    samples = [gallery.sample(1, cover) for cover in (20, 50, 80, 100)]
    hidden = np.zeros(clear.label.shape, dtype=bool)
    for cover, sample in zip((20, 50, 80, 100), samples, strict=True):
        assert sample.cover == pytest.approx(cover / 100, abs=0.001)
        # what the smaller cloud hid, the larger one hides too: the same field, cut at another height
        covered = CloudSynthesizer(kind="thick", coverage=cover / 100).field(64, 64, _number(gallery, 1)).alpha > 0.5
        assert (covered | ~hidden).all() and covered.sum() > hidden.sum()
        np.testing.assert_array_equal(sample.optical[covered].shape, clear.optical[covered].shape)
        assert np.abs(sample.optical[covered].astype(int) - clear.optical[covered]).mean() > 20
        np.testing.assert_array_equal(sample.sar, clear.sar)
        np.testing.assert_array_equal(sample.label, clear.label)
        hidden = covered
    assert hidden.all() and clear.cover == 0


def test_a_scene_is_the_same_each_time_and_has_its_place(gallery):
    first, second = gallery.sample(0, 35), Gallery(count=1, size=64).sample(0, 35)
    np.testing.assert_array_equal(first.optical, second.optical)
    np.testing.assert_array_equal(first.sar, second.sar)
    world = gallery._scenes[0]["world"]
    assert first.grid.crs.to_epsg() == 32632 and first.grid.gsd_m() == pytest.approx(2.5)
    assert first.grid.transform == world_transform(world["row"], world["col"], 2.5)
    assert not np.array_equal(first.optical, Gallery(count=1, size=64, seed=1).sample(0, 35).optical)


@pytest.mark.parametrize(("index", "cover"), [(3, 10), (-1, 10), (0, 101), (0, -1), (0, float("nan"))])
def test_what_is_not_there_is_refused(gallery, index, cover):
    with pytest.raises(UserError, match="choose one of 1..3|0..100 percent"):
        gallery.sample(index, cover)


def _number(gallery, index):
    import zlib

    return zlib.crc32(gallery._scenes[index]["image_id"].encode())
