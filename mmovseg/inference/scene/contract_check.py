"""Whether the values of rasters look like what a model was trained on, from samples spread over the scene.

A raster of another unit gives a map all the same, only a wrong one, so what does not fit is refused with the sentence
that mends it. What a file or the user declares is believed as far as the values allow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.data.io import OPTICAL_RANGE_INTEGER
from mmovseg.data.sar import convert_sar
from mmovseg.errors import UserError
from mmovseg.inference.scene.sources import OpticalSource, SarSource

if TYPE_CHECKING:
    from mmovseg.inference.scene.rasters import SceneInputs

_FEW, _MANY = (5, 64), (16, 32)  # windows per axis and their side; many where few hold no data
_UNIT_SHARE = 0.01  # of values that may contradict a unit
_ZERO_SHARE = 0.02
_FAR_STDS, _ODD_STDS = 5.0, 3.0
_DARK, _SATURATED_SHARE = 26.0, 0.95  # a tenth of the 0..255 scale
_BEYOND_CLOUD = 6.0  # times the upper end of the range: no cloud reflects so much


@dataclass(frozen=True)
class Samples:
    """Values (n, B) of pixels that are data, as the file holds or scales them, and the share of pixels that are."""

    values: np.ndarray
    share: float


def check_values(
    optical: OpticalSource | None,
    sar: SarSource | None,
    *,
    contract: InputContract | None,
    inputs: SceneInputs,
    override: bool,
    warnings: list[str],
) -> None:
    """Check both rasters of a scene, each if it is there.

    Args:
        optical, sar: open.
        contract: of the model; None only looks for rasters without data.
        inputs: what the user has said about them.
        override: turn what would be refused into a warning.
        warnings: gets a sentence for all that is odd but no reason to refuse.

    Raises:
        UserError: a raster has no data, or does not look like what the model was trained on.
    """
    problems: list[str] = []
    if optical is not None:
        samples = _samples(optical)
        name = f"optical raster '{optical.raster.path}'"
        if not samples.values.size:
            problems.append(_no_data(name))
        elif contract is not None:
            problems += _check_optical(optical, samples, inputs, name, warnings)
    if sar is not None:
        samples = _samples(sar)
        name = f"SAR raster '{sar.raster.path}'"
        if not samples.values.size:
            problems.append(_no_data(name))
        elif contract is not None and contract.sar is not None:
            problems += _check_sar(sar, samples, contract.sar, inputs, name, warnings)
    if problems and not override:
        raise UserError(problems[0])
    warnings += problems


def _no_data(name: str) -> str:
    return f"{name} holds no data in any of the {_FEW[0] ** 2 + _MANY[0] ** 2} windows looked at, only nodata or NaN"


def _samples(source: OpticalSource | SarSource) -> Samples:
    for count, side in (_FEW, _MANY):
        found, seen = [], 0
        for row, column, height, width in _windows(source, count, side):
            values, valid = source.stored(row, column, height, width)
            found.append(values[valid])
            seen += valid.size
        values = np.concatenate(found)
        if len(values):
            return Samples(values, len(values) / seen)
    return Samples(values, 0.0)


def _windows(source: OpticalSource | SarSource, count: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield row, column, height, width of windows on a regular grid, the corners among them."""
    height, width = source.raster.source.height, source.raster.source.width
    for row in np.unique(np.linspace(0, max(height - side, 0), count).astype(int)):
        for column in np.unique(np.linspace(0, max(width - side, 0), count).astype(int)):
            yield int(row), int(column), min(side, height), min(side, width)


def _check_sar(
    source: SarSource,
    samples: Samples,
    contract: ModalityContract,
    inputs: SceneInputs,
    name: str,
    warnings: list[str],
) -> list[str]:
    problem = _one_value(samples.values, name) or _wrong_unit(samples.values, source, name)
    if problem:
        return [problem]
    zeros = float((samples.values == _zero(source)).all(axis=1).mean())
    if source.unit != "db" and zeros > _ZERO_SHARE and inputs.sar_nodata is None:
        warnings.append(
            f"{100 * zeros:.0f} % of {name} are exactly 0 and not declared as no data; if that is fill, give "
            "--sar-nodata 0"
        )
    values = convert_sar(samples.values, unit_in=source.unit, unit_out=source.unit_out)
    return _outside_training(values, contract, name, warnings)


def _zero(source: OpticalSource | SarSource) -> np.ndarray:
    """Return what a stored 0 stands for, (B,)."""
    zero = np.zeros(len(source.bands), dtype=np.float32)
    return zero if source.scaling is None else source.scaling.apply(zero)


def _one_value(values: np.ndarray, name: str) -> str | None:
    if (values != values[:1]).any():
        return None
    spelled = ", ".join(f"{value:g}" for value in values[0])
    return f"{name} holds one value only ({spelled}) wherever it was looked at; it shows nothing"


def _wrong_unit(values: np.ndarray, source: SarSource, name: str) -> str | None:
    """Return the sentence that mends a unit which the values rule out, None if they do not."""
    low, median, high = (float(v) for v in np.quantile(values, (0.0, 0.5, 1.0)))
    negative = float((values < 0).mean())
    whole = bool((values == np.rint(values)).all())
    spread = f"its values ({low:.4g} to {high:.4g}, half of them below {median:.4g})"
    said = f"{name} is read as {source.unit}, but {spread}"
    if source.unit == "db" and negative < _UNIT_SHARE and high > 0:
        if whole and high <= 255:
            return f"{said} look like 8-bit amplitude; give --sar-unit amplitude8"
        if median <= 20:
            return f"{said} look like linear power; give --sar-unit linear"
        return (
            f"{said} look like uncalibrated digital numbers; calibrate it to sigma nought, and give --sar-unit linear "
            "or db as it comes out"
        )
    if source.unit != "db" and negative > 0.2:
        return f"{said} look like decibel; give --sar-unit db"
    if source.unit == "linear" and whole and high <= 255 and median > 2:
        return f"{said} look like 8-bit amplitude; give --sar-unit amplitude8"
    if source.unit == "amplitude8" and (high > 255 or low < 0):
        return f"{said} are not 0..255; give --sar-unit linear if they are power"
    if source.unit == "amplitude8" and not whole and high < 20:
        return f"{said} look like linear power; give --sar-unit linear"
    return None


def _outside_training(values: np.ndarray, contract: ModalityContract, name: str, warnings: list[str]) -> list[str]:
    """Compare values in the unit of the contract with its range, mean and deviation, band by band."""
    problems = []
    for band, text in enumerate(contract.bands):
        column = values[:, min(band, values.shape[1] - 1)]
        median = float(np.median(column))
        mean, std = contract.mean[band], contract.std[band]
        far = abs(median - mean) / std
        trained = f"the model was trained on {mean:g} +- {std:g} ({text}, {contract.unit})"
        outside = 0.0
        if contract.clip is not None:
            outside = float(((column < contract.clip[0]) | (column > contract.clip[1])).mean())
        if outside > 0.5:
            assert contract.clip is not None
            problems.append(
                f"{100 * outside:.0f} % of {name} lie outside {contract.clip[0]:g}..{contract.clip[1]:g} "
                f"{contract.unit} (half of them below {median:.4g}), all that the model knows; check --sar-unit, "
                "--sar-bands and calibration, or go on with --override-contract"
            )
            break
        if far > _FAR_STDS:
            problems.append(
                f"half of {name} lie below {median:.4g} {contract.unit}, while {trained}; check --sar-unit, "
                "--sar-bands and calibration, or go on with --override-contract"
            )
            break
        if far > _ODD_STDS:
            warnings.append(f"half of {name} lie below {median:.4g} {contract.unit}, while {trained}")
    return problems


def _check_optical(
    source: OpticalSource, samples: Samples, inputs: SceneInputs, name: str, warnings: list[str]
) -> list[str]:
    problem = _one_value(samples.values, name)
    if problem:
        return [problem]
    stored = samples.values.astype(np.float64)
    dtype = source.raster.source.dtypes[source.bands[0] - 1]
    scaled_by = source.optical_range or (None if dtype == "uint8" else OPTICAL_RANGE_INTEGER)
    low, high = scaled_by or (0.0, 255.0)
    scaled = np.clip((stored - low) * (255.0 / (high - low)), 0.0, 255.0)
    median, bright = float(np.median(stored)), float(np.quantile(stored, 0.995))
    spread = f"its values ({stored.min():.4g} to {stored.max():.4g}, half of them below {median:.4g})"
    zeros = float((samples.values == _zero(source)).all(axis=1).mean())
    if zeros > _ZERO_SHARE and inputs.optical_nodata is None and source.raster.palette() is None:
        warnings.append(
            f"{100 * zeros:.0f} % of {name} are 0 in all bands and not declared as no data; if that is fill, give "
            "--optical-nodata 0"
        )
    if source.raster.palette() is not None:
        return []
    brightest = float(np.quantile(scaled, 0.995))
    if scaled_by is not None and brightest < _DARK:
        return [
            f"{name} is shown with {low:g} as black and {high:g} as white, but {spread} would be almost black; give "
            f"--optical-range, for example {_suggest(stored)}"
        ]
    if scaled_by is not None and float((scaled >= 255).all(axis=1).mean()) > _SATURATED_SHARE:
        sentence = (
            f"{name} is shown with {low:g} as black and {high:g} as white, but {spread} would be almost all white"
        )
        if median > low + _BEYOND_CLOUD * (high - low):
            return [f"{sentence}; give --optical-range, for example {_suggest(stored)}"]
        warnings.append(f"{sentence}, as thick cloud is; if it is none, give --optical-range")
    elif scaled_by is None and bright < 2:
        warnings.append(f"{name} is almost black: {spread}")
    return []


def _suggest(stored: np.ndarray) -> str:
    """Return a range that shows the values: a usual one if it fits, else what most of them lie in."""
    top = float(np.quantile(stored, 0.995))
    for high in (0.3, 1.0, 255.0, 1023.0, 2047.0, 4095.0, 10000.0, 65535.0):
        if high / 4 < top <= high:
            return f"0 {high:g}"
    return f"{np.quantile(stored, 0.005):.4g} {top:.4g}"
