"""Gaps on MiniEarth: which domains are where, that no scene is on both sides, and amplitude from every unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmovseg.data.miniearth import MiniEarthReader, get_domain
from mmovseg.data.miniearth.dataset import DEFAULT_COUNTS
from mmovseg.data.sample import RawSample
from mmovseg.errors import UserError
from mmovseg.projects.crossearth.data.gaps import (
    EIGHT_GAPS,
    GAPS,
    POOL_START,
    POOLS,
    AmplitudeReader,
    load_gap,
    load_pool,
)

FACTORS = ("region", "platform", "band", "polarizations", "value_type")


def windows(scenes):
    """(split area, region, row, column) of every scene: the ground that it shows, at one pixel size."""
    return {
        (world["domain"]["region"], world["domain"]["gsd_m"], world["row"], world["col"])
        for world in (scene["world"] for scene in scenes)
    }


def changed(domain):
    base = get_domain("default")
    found = {name for name in FACTORS if getattr(domain, name) != getattr(base, name)}
    return frozenset(found)


@pytest.mark.parametrize(
    ("gap", "factors"),
    [
        ("region", {"region"}),
        ("polarization", {"polarizations"}),
        ("complex", {"value_type"}),
        ("region_polarization", {"region", "polarizations"}),
        ("region_platform", {"region", "platform"}),
        ("region_band", {"region", "band"}),
        ("region_polarization_band", {"region", "polarizations", "band"}),
        ("region_platform_band", {"region", "platform", "band"}),
    ],
)
def test_each_gap_changes_what_it_is_named_after(gap, factors):
    assert GAPS[gap].source.domain == get_domain("default")
    assert changed(GAPS[gap].target.domain) == factors
    assert GAPS[gap].target.rendering == ("real" if gap == "complex" else "amplitude")


def test_there_are_eight_gaps_and_one_of_equal_scenes():
    assert len(EIGHT_GAPS) == 8 and set(GAPS) - set(EIGHT_GAPS) == {"complex_part"}
    source, target = (GAPS["complex_part"].source, GAPS["complex_part"].target)
    assert source.domain == target.domain and (source.rendering, target.rendering) == ("amplitude", "real")


@pytest.mark.parametrize("pool", sorted(POOLS))
def test_a_pool_never_holds_what_a_target_shows(pool):
    for domain in POOLS[pool].values():
        factors = changed(domain)
        assert len(factors) <= (1 if pool == "factors" else 0)
        assert domain.region != "arid" and domain.value_type == "db"
        assert "HH" not in domain.polarizations and "HV" not in domain.polarizations
        assert domain not in [GAPS[gap].target.domain for gap in EIGHT_GAPS]


def test_pool_source_and_targets_share_no_ground():
    pool = load_pool(num_scenes=80)
    source = load_gap("region", "source")
    assert len(pool) == 80 and len(source) == POOL_START
    assert len(windows(pool)) == 80  # no window in two domains either
    assert not windows(pool) & windows(source)
    targets = [scene for gap in EIGHT_GAPS for scene in load_gap(gap, "target", num_scenes=20)]
    assert not {(row, col) for *_, row, col in windows(targets)} & {(row, col) for *_, row, col in windows(source)}
    held = load_pool(num_scenes=16, split="test")
    assert not windows(held) & windows(load_gap("complex_part", "target", num_scenes=DEFAULT_COUNTS["test"]))


def test_domains_of_a_pool_take_turns_and_say_who_they_are():
    pool = load_pool(["airborne", "winter"], num_scenes=5)
    assert [scene["source"] for scene in pool] == ["airborne", "winter"] * 2
    assert len({scene["image_id"] for scene in pool}) == 4
    assert [get_domain(scene["world"]["domain"]) for scene in pool[:2]] == [
        POOLS["factors"]["airborne"],
        get_domain("winter"),
    ]


def test_a_gap_runs_both_ways_and_chooses_the_part():
    there, back = (
        load_gap("complex", "target", num_scenes=2, reverse=turn, part="imaginary") for turn in (False, True)
    )
    assert there[0]["world"]["rendering"] == "imaginary" and back[0]["world"]["rendering"] == "amplitude"
    assert get_domain(back[0]["world"]["domain"]) == get_domain("default")
    (trained,) = load_gap("complex", "source", num_scenes=1, reverse=True)
    assert trained["world"]["domain"]["value_type"] == "complex"
    assert trained["source"] == "complex_source"
    assert trained["image_id"].startswith("complex_source/miniearth_train")


def fake_reader(values, unit):
    domain = {"value_type": unit}

    def read(dataset_dict):
        return RawSample(sar=np.array(values, dtype=np.float32).reshape(1, 1, -1), facts={"domain": domain})

    return read


def shown(values, unit, *, rendering="amplitude", **options):
    sample = AmplitudeReader(fake_reader(values, unit), **options)({"world": {"rendering": rendering}})
    assert sample.sar.shape == (1, 1, 1) and sample.sar.dtype == np.float32
    return float(sample.sar[0, 0, 0])


def test_every_unit_gives_the_same_amplitude():
    power = 0.04  # amplitude 0.2 of 10 ** (5 / 20) = 1.778
    expected = round(255 * 0.2 / 10 ** (5 / 20))
    assert shown([power, 9.0], "linear") == expected == 29
    assert shown([10 * np.log10(power), 3.0], "db") == expected
    assert shown([expected, 200.0], "amplitude8") == expected
    assert shown([0.12, -0.16, 1.0, 1.0], "complex") == expected
    assert shown([9.0, 0.04], "linear", channel=1) == expected
    assert shown([1.0, 1.0, 0.12, -0.16], "complex", channel=1) == expected


def test_parts_of_complex_values_are_magnitudes_or_signed():
    gain = 255 / 10 ** (5 / 20)
    assert shown([0.12, -0.16], "complex", rendering="real") == round(gain * 0.12 * np.sqrt(2))
    assert shown([0.12, -0.16], "complex", rendering="imaginary") == round(gain * 0.16 * np.sqrt(2))
    assert shown([0.12, -0.16], "complex", rendering="imaginary", signed=True) == round(
        127.5 - gain / 2 * 0.16 * np.sqrt(2)
    )
    assert shown([0.0, -0.16], "complex", rendering="real", signed=True) == round(127.5)
    assert shown([0.0, 9.0], "complex", rendering="imaginary") == 255


def test_the_magnitude_of_a_part_keeps_mean_power():
    domain = replace(get_domain("unseen_complex"), speckle=True)
    (scene,) = load_gap("complex_part", "target", num_scenes=1)
    (whole,) = load_gap("complex_part", "source", num_scenes=1, split="test")
    assert get_domain(scene["world"]["domain"]) == domain
    reader = AmplitudeReader(MiniEarthReader())
    part, amplitude = reader(scene).sar, reader(whole).sar
    assert part.shape == amplitude.shape == (64, 64, 1)
    assert np.square(part).mean() == pytest.approx(np.square(amplitude).mean(), rel=0.05)
    assert (part == 0).mean() > 3 * (amplitude == 0).mean()  # a part is often near zero, the amplitude seldom


def test_labels_stay_those_of_the_domain():
    (scene,) = load_gap("region_band", "target", num_scenes=1)
    inner = MiniEarthReader()
    sample = AmplitudeReader(inner)(scene)
    assert np.array_equal(sample.sem_seg, inner(scene).sem_seg)
    assert sample.sar.min() >= 0 and sample.sar.max() <= 255 and np.array_equal(sample.sar, np.rint(sample.sar))


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda: load_gap("season", "target"), "MiniEarth has no gap 'season'; it has: region, polarization"),
        (lambda: load_gap("region", "test"), "a gap has the sides source and target, got 'test'"),
        (lambda: load_gap("complex", "target", part="phase"), "must be real or imaginary, got 'phase'"),
        (lambda: load_gap("region", "source", num_scenes=2001), "at most 2000 training scenes, got num_scenes 2001"),
        (lambda: load_pool("all"), "MiniEarth has no pool 'all'; it has: factors, strict"),
        (lambda: load_pool(["winter", "arid"]), "no pool of MiniEarth has a domain 'arid'"),
        (lambda: load_pool([]), "a pool needs at least one domain"),
        (lambda: load_pool(num_scenes=7), "a pool of 8 domains needs as many scenes, got num_scenes 7"),
        (lambda: AmplitudeReader(None, channel=-1), "channel of the amplitude must be 0 or more, got -1"),
        (lambda: shown([1.0], "db", channel=1), "has 1 polarisations, so there is no channel 1"),
        (lambda: shown([1.0], "db", rendering="real"), "asks for the real part, but its values are 'db', not complex"),
        (lambda: shown([1.0], "db", rendering="phase"), "asks for the rendering 'phase'; known: amplitude, real"),
    ],
)
def test_wrong_arguments_are_told(call, fault):
    with pytest.raises(UserError, match=fault):
        call()
