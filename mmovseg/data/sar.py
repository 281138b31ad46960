"""Units and polarisations of SAR rasters: the only place where either changes.

Inside mmovseg SAR travels as decibel of backscatter (sigma nought unless the data set says otherwise), float32, NaN
where there is no data. `linear` is power, `amplitude8` is the 8-bit amplitude that quick-look products store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from mmovseg.errors import UserError

SarUnit = Literal["db", "linear", "amplitude8"]
SAR_UNITS: tuple[SarUnit, ...] = get_args(SarUnit)


def check_sar_units(*units: str) -> None:
    """Raise `UserError` when one of the units is unknown."""
    for unit in units:
        if unit not in SAR_UNITS:
            raise UserError(f"unknown SAR unit '{unit}'; known: {', '.join(SAR_UNITS)}")


FLOOR_DB = -50.0
"""What zero or negative power becomes: below the noise floor of every civil sensor, yet finite."""

AMPLITUDE8_TOP_DB = 5.0
"""Calibration of `amplitude8`: the backscatter in dB that the digital number 255 stands for."""


def linear_to_db(power: np.ndarray, *, floor_db: float = FLOOR_DB) -> np.ndarray:
    """Turn power into decibel.

    Args:
        power: any shape, linear power (sigma nought as a ratio); NaN allowed.
        floor_db: returned for every power at or below ``10 ** (floor_db / 10)``, so also for zero and below.

    Returns:
        float32 of the same shape, at least `floor_db`, NaN where `power` is NaN.
    """
    lowest = 10.0 ** (floor_db / 10.0)
    return (10.0 * np.log10(np.maximum(np.asarray(power, dtype=np.float64), lowest))).astype(np.float32)


def db_to_linear(sar_db: np.ndarray) -> np.ndarray:
    """Turn decibel into power: float32 of the same shape, zero for -inf, NaN kept."""
    return np.power(10.0, np.asarray(sar_db, dtype=np.float64) / 10.0).astype(np.float32)


def amplitude8_to_db(digital: np.ndarray, *, top_db: float = AMPLITUDE8_TOP_DB) -> np.ndarray:
    """Turn 8-bit amplitude into decibel: ``20 log10(digital / 255) + top_db``.

    Args:
        digital: any shape, 0..255, proportional to amplitude (the square root of power); NaN allowed.
        top_db: calibration, the dB value of the digital number 255.

    Returns:
        float32 of the same shape. Digital number 0 means "less than half a step" and is read as 0.5, 54.2 dB below
        `top_db`, so that the result is finite.
    """
    amplitude = np.maximum(np.asarray(digital, dtype=np.float64), 0.5) / 255.0
    return (20.0 * np.log10(amplitude) + top_db).astype(np.float32)


def db_to_amplitude8(sar_db: np.ndarray, *, top_db: float = AMPLITUDE8_TOP_DB) -> np.ndarray:
    """Turn decibel into 8-bit amplitude, the inverse of `amplitude8_to_db` for the digital numbers 0..255.

    Args:
        sar_db: any shape, dB; NaN allowed.
        top_db: calibration, the dB value of the digital number 255; brighter targets saturate.

    Returns:
        float32 of the same shape holding whole numbers 0..255, NaN where `sar_db` is NaN (a uint8 could not say so).
    """
    amplitude = np.power(10.0, (np.asarray(sar_db, dtype=np.float64) - top_db) / 20.0)
    # Half a step is what 0 stands for, and rint(0.5) is 0: the round trip holds at the lower end too.
    return np.clip(np.rint(255.0 * amplitude - 1e-6), 0.0, 255.0).astype(np.float32)


def complex_to_linear(samples: np.ndarray) -> np.ndarray:
    """Detect single-look complex samples (I + jQ) to power ``|z|^2``: float32 of the same shape, NaN kept."""
    return (np.square(samples.real, dtype=np.float64) + np.square(samples.imag, dtype=np.float64)).astype(np.float32)


def convert_sar(
    sar: np.ndarray, *, unit_in: SarUnit, unit_out: SarUnit, amplitude8_top_db: float = AMPLITUDE8_TOP_DB
) -> np.ndarray:
    """Convert between any two of the known units; equal units return the values unchanged as float32.

    Args:
        sar: any shape, in `unit_in`; NaN is kept.
        unit_in: unit of `sar`.
        unit_out: unit asked for.
        amplitude8_top_db: calibration of the 8-bit side, if there is one.

    Returns:
        float32 of the same shape.

    Raises:
        UserError: a unit is unknown.
    """
    check_sar_units(unit_in, unit_out)
    if unit_in == unit_out:
        return np.asarray(sar, dtype=np.float32)
    if unit_in == "linear":
        sar_db = linear_to_db(sar)
    elif unit_in == "amplitude8":
        sar_db = amplitude8_to_db(sar, top_db=amplitude8_top_db)
    else:
        sar_db = np.asarray(sar, dtype=np.float32)
    if unit_out == "linear":
        return db_to_linear(sar_db)
    if unit_out == "amplitude8":
        return db_to_amplitude8(sar_db, top_db=amplitude8_top_db)
    return sar_db


def select_polarisations(
    sar: np.ndarray, available: Sequence[str], wanted: Sequence[str], *, source: str = "SAR raster"
) -> np.ndarray:
    """Pick and order polarisations by name.

    Args:
        sar: (H, W, P).
        available: the P names of the last axis, for example ``("VV", "VH")``; case is ignored.
        wanted: names to return, in order; a name may be asked for twice (a one-band raster for a two-band model).
        source: file named in errors.

    Returns:
        (H, W, len(wanted)).

    Raises:
        UserError: the count of names differs from the count of bands, or a wanted polarisation is not there.
    """
    if sar.shape[2] != len(available):
        raise UserError(f"'{source}' has {sar.shape[2]} bands, but the polarisations say {', '.join(available)}")
    folded = [name.casefold() for name in available]
    missing = [name for name in wanted if name.casefold() not in folded]
    if missing:
        raise UserError(f"'{source}' has no polarisation '{missing[0]}'; it has: {', '.join(available)}")
    return sar[:, :, [folded.index(name.casefold()) for name in wanted]]
