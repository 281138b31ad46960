"""SAR units: round trips, floor, NaN, polarisations."""

import itertools

import numpy as np
import pytest

from mmovseg.data.sar import (
    FLOOR_DB,
    SAR_UNITS,
    amplitude8_to_db,
    complex_to_linear,
    convert_sar,
    db_to_amplitude8,
    db_to_linear,
    linear_to_db,
    select_polarisations,
)
from mmovseg.errors import UserError


def test_db_round_trip():
    sar_db = np.linspace(-40, 15, 300, dtype=np.float32).reshape(10, 15, 2)
    np.testing.assert_allclose(linear_to_db(db_to_linear(sar_db)), sar_db, atol=1e-5)
    assert db_to_linear(np.float32([0.0, 10.0, -np.inf])).tolist() == [1.0, 10.0, 0.0]


def test_every_amplitude_number_survives_the_round_trip():
    digital = np.arange(256, dtype=np.uint8)
    sar_db = amplitude8_to_db(digital)
    assert sar_db[255] == pytest.approx(5.0)
    assert sar_db[128] == pytest.approx(5.0 + 20 * np.log10(128 / 255))
    assert db_to_amplitude8(sar_db).tolist() == digital.tolist()


def test_amplitude_is_proportional_to_the_root_of_power():
    power = db_to_linear(amplitude8_to_db(np.float32([50, 100, 200])))
    np.testing.assert_allclose(power[1:] / power[:-1], 4.0, rtol=1e-5)


def test_floor_and_nan():
    result = linear_to_db(np.float32([0.0, -3.0, np.nan, 1.0]))
    assert result[:2].tolist() == [FLOOR_DB, FLOOR_DB]
    assert np.isnan(result[2]) and result[3] == 0.0
    assert np.isnan(db_to_linear(np.float32([np.nan]))).all()
    assert np.isnan(db_to_amplitude8(np.float32([np.nan]))).all()
    assert np.isfinite(amplitude8_to_db(np.uint8([0]))).all()


@pytest.mark.parametrize(("unit_in", "unit_out"), [*itertools.product(SAR_UNITS, SAR_UNITS)])
def test_every_conversion_and_back(unit_in, unit_out):
    digital = np.float32([1, 7, 60, 200, 255])
    stored = convert_sar(digital, unit_in="amplitude8", unit_out=unit_in)
    there = convert_sar(stored, unit_in=unit_in, unit_out=unit_out)
    back = convert_sar(there, unit_in=unit_out, unit_out=unit_in)
    assert there.dtype == np.float32
    np.testing.assert_allclose(back, stored, rtol=1e-4, atol=1e-4)


def test_unknown_unit_is_named():
    with pytest.raises(UserError, match="'watt'"):
        convert_sar(np.zeros(3), unit_in="watt", unit_out="db")


def test_complex_becomes_power():
    power = complex_to_linear(np.array([[3 + 4j, np.nan]], dtype=np.complex64))
    assert power.dtype == np.float32 and power[0, 0] == 25.0 and np.isnan(power[0, 1])


def test_polarisations_are_picked_by_name():
    sar = np.stack([np.full((2, 3), value) for value in (1.0, 2.0, 3.0)], axis=-1)
    picked = select_polarisations(sar, ("HH", "HV", "VV"), ("vv", "HH", "HH"))
    assert picked[0, 0].tolist() == [3.0, 1.0, 1.0]
    with pytest.raises(UserError, match="a.tif.*'VH'"):
        select_polarisations(sar, ("HH", "HV", "VV"), ("VH",), source="a.tif")
    with pytest.raises(UserError, match="3 bands"):
        select_polarisations(sar, ("HH", "HV"), ("HH",))
