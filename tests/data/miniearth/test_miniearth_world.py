"""The rendered world: repeatable, seamless, with fair shares of every class, and targets on their ground."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmovseg.data.miniearth import DOMAINS, Domain, domain_from_dict, get_domain, render
from mmovseg.data.miniearth.layout import survey
from mmovseg.data.miniearth.noise import pixel_axis
from mmovseg.data.miniearth.regions import BARELAND, CLASS_NAMES, REGIONS, ROAD, TARGET_CATEGORIES, WATER
from mmovseg.data.miniearth.targets import find_targets
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError

GROUND = {"aircraft": BARELAND, "ship": WATER, "vehicle": ROAD}


def assert_crop(domain, top, left, height, width, *, inner):
    large = render(domain, top, left, height, width, seed=3)
    y, x, h, w = inner
    small = render(domain, top + y, left + x, h, w, seed=3)
    for name in ("optical", "sar", "label"):
        assert np.array_equal(getattr(large, name)[y : y + h, x : x + w], getattr(small, name)), name


@pytest.mark.parametrize(
    "domain",
    ["default", "time_gap", "unseen_complex", "coarse", replace(Domain(), misregistration_px=3.0, optical_blur=2)],
)
def test_window_equals_crop_of_larger_one(domain):
    assert_crop(domain, -70, 55, 120, 100, inner=(31, 22, 60, 67))


def test_large_windows_have_no_seams_where_tiles_meet():
    assert_crop("default", 5000, 5000, 230, 215, inner=(150, 140, 80, 75))


def test_render_is_repeatable_and_depends_on_the_seed():
    first, again, other = (render("default", 10, 20, 64, 64, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(first.optical, again.optical) and np.array_equal(first.sar, again.sar)
    assert first.targets == again.targets
    assert (first.label != other.label).mean() > 0.2


def test_pixels_are_those_of_this_version():
    path = Path(__file__).with_name("make_golden.py")
    spec = importlib.util.spec_from_file_location("make_miniearth_golden", path)
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    expected = json.loads(golden.FILE.read_text(encoding="utf-8"))
    assert expected["version"] == golden.VERSION
    assert {name: golden.fingerprint(name) for name in golden.WINDOWS} == expected["windows"]


@pytest.mark.parametrize("name", DOMAINS)
def test_every_domain_renders(name):
    domain = get_domain(name)
    scene = render(name, 640, 320, 40, 33)
    assert scene.optical.shape == (40, 33, 3) and scene.optical.dtype == np.uint8
    assert scene.sar.shape == (40, 33, len(domain.sar_channels)) and scene.sar.dtype == np.float32
    assert scene.label.shape == (40, 33) and scene.label.dtype == np.uint8
    assert np.isfinite(scene.sar).all() and scene.label.max() < len(CLASS_NAMES)
    assert scene.optical.std() > 3
    assert sum(scene.shares) == pytest.approx(1.0)


def test_classes_are_those_of_the_vocabulary():
    vocabulary = get_vocabulary("miniearth", "clean")
    assert tuple(vocabulary.names) == CLASS_NAMES
    assert [CLASS_NAMES[index] for index in vocabulary.unseen_ids] == ["road", "water"]


@pytest.mark.parametrize("region", ["temperate", "arid", "tropical"])
def test_class_shares(region):
    domain = replace(Domain(), region=region)
    # 256 windows of 64 px, spread over the world as 16 blocks of 4 x 4
    blocks = [render(domain, 40_000 * i, 31_000 * j, 256, 256).shares for i in range(4) for j in range(4)]
    shares = dict(zip(CLASS_NAMES, np.mean(blocks, axis=0), strict=True))
    assert 0.08 < shares.pop("road") < 0.14
    assert 0.08 < shares.pop("water") < 0.19
    for name, share in shares.items():
        assert 0.07 < share < 0.27, (name, share)


def test_windows_hold_several_classes():
    counts = []
    for index in range(60):
        scene = render("default", 977 * index, 64 * index, 64, 64)
        counts.append(sum(share >= 0.015 for share in scene.shares))
    assert 2.5 < np.mean(counts) < 4.5
    assert min(counts) <= 2


def test_regions_and_domains_look_different():
    default = render("default", 0, 0, 128, 128)
    winter = render("winter", 0, 0, 128, 128)
    arid = render("unseen_region", 0, 0, 128, 128)
    assert np.array_equal(default.label, winter.label)
    assert np.abs(default.optical.astype(int) - winter.optical).mean() > 5
    assert (default.label != arid.label).mean() > 0.2


def test_coarser_pixels_show_the_same_ground():
    fine = render("default", 200, 400, 96, 96).label
    coarse = render("coarse", 100, 200, 48, 48).label
    assert (fine[::2, ::2] == coarse).mean() > 0.85


def test_targets_lie_on_their_ground_and_show_in_both_views():
    seen = dict.fromkeys(TARGET_CATEGORIES, 0)
    clean = replace(Domain(), misregistration_px=0.0, speckle=False)
    for index in range(6):
        scene = render(clean, 3000 * index, 700 * index, 384, 384)
        for target in scene.targets:
            x0, y0, x1, y1 = target["box"]
            assert 0 <= x0 < x1 <= 384 and 0 <= y0 < y1 <= 384
            box = (slice(y0, y1), slice(x0, x1))
            ground = GROUND[target["category"]]
            assert (scene.label[box] == ground).mean() > 0.3
            assert scene.sar[box][..., 0].max() > -12
            seen[target["category"]] += 1
    assert all(count >= 3 for count in seen.values()), seen


def test_outlines_lie_completely_on_their_ground():
    ys = xs = pixel_axis(0, 900) * 2.5
    layout = survey(ys, xs, REGIONS["temperate"], 8)
    targets = find_targets(layout, Domain(), 8)
    assert len(targets) > 50
    for target in targets:
        assert (layout.label[target.rows, target.cols] == GROUND[target.kind.category]).all()


def test_neighbouring_windows_share_out_the_targets():
    whole = render("default", 300, 300, 160, 160).targets
    parts = [render("default", 300 + y, 300 + x, 80, 80).targets for y in (0, 80) for x in (0, 80)]
    assert len(whole) == sum(map(len, parts)) > 0


def test_empty_window_is_refused():
    with pytest.raises(ValueError, match="0 x 5"):
        render("default", 0, 0, 0, 5)


@pytest.mark.parametrize("name", DOMAINS)
def test_domain_survives_json(name):
    domain = get_domain(name)
    assert domain_from_dict(json.loads(json.dumps(domain.to_dict()))) == domain


def test_unknown_domain_lists_the_known_ones():
    with pytest.raises(UserError, match="'atlantis'.*default.*unseen_region_platform_band"):
        render("atlantis", 0, 0, 8, 8)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"region": "moon"}, "region is 'moon'"),
        ({"looks": 0}, "looks is 0"),
        ({"looks": 2.5}, "looks is 2.5"),
        ({"polarizations": []}, "polarizations"),
        ({"polarizations": ["VV", "VV"]}, "polarizations"),
        ({"gsd_m": 100.0}, "gsd_m is 100.0"),
        ({"value_type": "complex"}, "looks is 4"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_bad_domains_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        domain_from_dict({**Domain().to_dict(), **change})
