"""The shift between optical and SAR: found through clouds and speckle, and not claimed where there is none to find."""

from __future__ import annotations

import numpy as np
import pytest

from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.miniearth import render
from mmovseg.inference.coregistration import (
    SEARCH_PX,
    Correlation,
    Shift,
    add_up,
    correlate,
    edge_field,
    find_shift,
    share_near,
)

SIZE, FARTHEST = 320, 12


def _pair(number: int, down: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Return grey optical and SAR in dB of one place; what SAR shows lies (down, right) pixels further."""
    side = SIZE + 2 * FARTHEST
    scene = render("default", 320_000 + 700 * number, 1000, side, side)
    first_row, first_col = FARTHEST - down, FARTHEST - right
    sar = scene.sar[first_row : first_row + SIZE, first_col : first_col + SIZE].mean(axis=-1)
    return scene.optical[FARTHEST:-FARTHEST, FARTHEST:-FARTHEST], sar


def _find(optical: np.ndarray, sar: np.ndarray, **masks: np.ndarray) -> Shift:
    whole = np.ones(sar.shape, dtype=bool)
    valid = (masks.get("optical_valid", whole), masks.get("sar_valid", whole))
    return find_shift(correlate(optical.astype(np.float32).mean(axis=-1), sar, *valid))


def _error(shift: Shift, down: int, right: int) -> float:
    return float(np.hypot(shift.dy - down, shift.dx - right))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (12, -12), (-7, 3)])
def test_shift_is_found(down, right):
    shift = _find(*_pair(1, down, right))
    assert _error(shift, down, right) <= 1.0 and shift.is_sure


def test_shift_is_found_through_clouds():
    optical, sar = _pair(2, 9, -5)
    clouded, _, _ = CloudSynthesizer(kind="thick", coverage=0.5)(optical, 7)
    shift = _find(clouded, sar)
    assert _error(shift, 9, -5) <= 1.0 and shift.is_sure


def test_nothing_is_claimed_of_two_places():
    shift = _find(_pair(3, 0, 0)[0], _pair(4, 0, 0)[1])
    assert not shift.is_sure


def test_masked_pixels_do_not_count():
    optical, sar = _pair(5, 4, 6)
    hole = np.ones(sar.shape, dtype=bool)
    hole[:, :150] = False
    spoiled = np.where(hole, sar, np.nan)
    shift = _find(optical, spoiled, sar_valid=hole)
    assert _error(shift, 4, 6) <= 1.5  # half a window: its own misregistration of up to 0.7 px is not averaged out
    anything = _find(optical, np.where(hole, sar, 1e9), sar_valid=hole)
    assert anything == shift


def test_turned_contrast_is_the_same_edge():
    optical, sar = _pair(6, 0, 0)
    valid = np.ones(sar.shape, dtype=bool)
    field, known = edge_field(sar, valid)
    turned, _ = edge_field(-sar, valid)
    assert np.abs(field - turned).max() < 1e-4 and np.abs(field).max() <= 1.0
    assert not known[:2].any() and known[20:-20, 20:-20].all() and (field[~known] == 0).all()


def test_flat_or_empty_images_say_nothing():
    flat = np.zeros((96, 96))
    for valid in (np.ones((96, 96), dtype=bool), np.zeros((96, 96), dtype=bool)):
        correlation = correlate(flat, flat, valid, valid)
        assert (correlation.surface == 0).all() and not find_shift(correlation).is_sure


def test_windows_add_up_by_what_they_show():
    rng = np.random.default_rng(0)
    size = 2 * SEARCH_PX + 1
    peak = np.zeros((size, size))
    peak[SEARCH_PX + 2, SEARCH_PX - 3] = 50.0
    clear = Correlation(peak + rng.normal(size=(size, size)), np.full((size, size), 100.0))
    clouded = Correlation(rng.normal(size=(size, size)), np.full((size, size), 100.0))
    together = find_shift(add_up([clear, clouded, clouded]))
    assert (round(together.dy), round(together.dx)) == (2, -3)
    assert together.agreement == pytest.approx(50 / 300, rel=0.1)
    sure, off = Shift(2.0, -3.0, 20.0, 0.5), Shift(9.0, 9.0, 20.0, 0.5)
    assert share_near([sure, off, Shift(0, 0, 1.0, 0.1)], together) == 0.5 and share_near([], together) is None


def test_a_window_must_hold_the_search():
    valid = np.ones((48, 60), dtype=bool)
    with pytest.raises(ValueError, match="48x60 pixels is too small"):
        correlate(np.zeros((48, 60)), np.zeros((48, 60)), valid, valid, search_px=24)
    with pytest.raises(ValueError, match="up to 11 pixels must be looked for, got 10"):
        correlate(np.zeros((48, 60)), np.zeros((48, 60)), valid, valid, search_px=10)


@pytest.mark.slow  # 20 scenes each
@pytest.mark.parametrize(
    ("kind", "coverage", "least"), [(None, 0.0, 0.95), ("varied", 0.5, 0.95), ("thick", 0.5, 0.95), ("thick", 0.8, 0.7)]
)
def test_share_found_within_a_pixel(kind, coverage, least):
    """The figures of docs/scenes.md: shifts of up to 12 px each way, one window of 320 px."""
    rng, count = np.random.default_rng(0), 20
    errors, sure = [], []
    for number in range(count):
        down, right = (int(value) for value in rng.integers(-FARTHEST, FARTHEST + 1, size=2))
        optical, sar = _pair(number, down, right)
        if kind is not None:
            optical, _, _ = CloudSynthesizer(kind=kind, coverage=coverage, seed=1)(optical, number)
        shift = _find(optical, sar)
        errors.append(_error(shift, down, right))
        sure.append(shift.is_sure)
    found = np.array(errors) <= 1.0
    print(
        f"{kind} {coverage}: {found.mean():.0%} within 1 px, median {np.median(errors):.2f}; sure {np.mean(sure):.0%}"
    )
    assert found.mean() >= least and found[np.array(sure)].all()
