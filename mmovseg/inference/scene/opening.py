"""Open the rasters of a scene: choose bands and unit, and refuse what cannot be read before any work is done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.io import stored_to_optical
from mmovseg.data.raster import Raster
from mmovseg.data.sar import SarUnit, check_sar_units
from mmovseg.errors import UserError
from mmovseg.inference.scene.integrity import check_whole
from mmovseg.inference.scene.sources import CloudSource, OpticalSource, PlaceSource, SarSource

if TYPE_CHECKING:
    from mmovseg.inference.scene.rasters import SceneInputs

_POLARISATION = re.compile(r"(?<![A-Za-z])(HH|HV|VH|VV)(?![A-Za-z])", re.IGNORECASE)
_UNIT_WORDS: dict[str, SarUnit] = {
    "db": "db",
    "decibel": "db",
    "decibels": "db",
    "linear": "linear",
    "power": "linear",
    "amplitude8": "amplitude8",
    "amplitude 0..255": "amplitude8",
}
"""What tags of units say, whole or by their first word ("dB sigma nought")."""


def open_optical(
    stack: ExitStack, inputs: SceneInputs, contract: InputContract | None, *, warnings: list[str]
) -> OpticalSource:
    """Open the optical raster; `stack` closes it.

    Raises:
        UserError: it is unusable, its bands are unclear, or no range is given for floats or for values of a coarse
            scale.
    """
    assert inputs.optical is not None
    raster = _open(stack, inputs.optical, "optical")
    names = (
        contract.optical.bands if contract is not None and contract.optical is not None else ("red", "green", "blue")
    )
    bands = _optical_bands(raster, inputs.optical_bands, names)
    source = OpticalSource(
        raster,
        bands=bands,
        channels=len(names),
        optical_range=inputs.optical_range,
        nodata=inputs.optical_nodata,
    )
    stored = np.zeros((1, 1, len(bands)), dtype=_numpy_type(raster, bands))
    stored_to_optical(  # says now what the first window would
        stored, np.ones((1, 1), dtype=bool), optical_range=source.optical_range, source=raster.path
    )
    if source.scaling is not None:
        low, high = source.optical_range or (0.0, 255.0)
        warnings.append(
            f"optical raster '{raster.path}' declares {source.scaling}, which are applied; of the values after that "
            f"{low:g} is black and {high:g} white{'' if inputs.optical_range else ', unless --optical-range differs'}"
        )
    return source


def _optical_bands(raster: Raster, chosen: Sequence[int] | None, names: Sequence[str]) -> list[int]:
    wanted = len(names)
    if chosen is not None:
        raster.check_bands(chosen)
        if len(chosen) not in (1, wanted):
            raise UserError(
                f"--optical-bands names {len(chosen)} bands of '{raster.path}', the model reads {wanted} "
                f"({', '.join(names)}); name {wanted}, or one for all"
            )
        return list(chosen)
    described = [(text or "").strip().casefold() for text in raster.source.descriptions]
    if all(name.casefold() in described for name in names):
        return [described.index(name.casefold()) + 1 for name in names]
    present = raster.data_bands()
    if len(present) in (1, wanted):
        return present
    if wanted == 3 and len(present) > 3:
        try:
            return raster.rgb_bands(None)
        except UserError:
            pass
    raise UserError(
        f"optical raster '{raster.path}' has {len(present)} bands{_spell_names(raster)} and does not say which are "
        f"{', '.join(names)}; name them, for Sentinel-2: --optical-bands 4 3 2"
    )


def open_sar(
    stack: ExitStack, inputs: SceneInputs, contract: InputContract | None, *, warnings: list[str]
) -> SarSource:
    """Open the SAR raster; `stack` closes it.

    Raises:
        UserError: it is unusable, or its bands are not those of the model.
    """
    assert inputs.sar is not None
    raster = _open(stack, inputs.sar, "SAR")
    wanted = contract.sar.bands if contract is not None and contract.sar is not None else None
    bands = _sar_bands(raster, inputs.sar_bands, wanted, warnings)
    unit_out: SarUnit = "db"
    if contract is not None and contract.sar is not None:
        check_sar_units(contract.sar.unit)
        unit_out = contract.sar.unit  # type: ignore[assignment]
    unit = _sar_unit(raster, bands, inputs.sar_unit, unit_out if contract is not None else None, warnings)
    source = SarSource(
        raster,
        bands=bands,
        channels=len(wanted or bands),
        unit=unit,
        unit_out=unit_out,
        nodata=inputs.sar_nodata,
    )
    if source.scaling is not None:
        warnings.append(
            f"SAR raster '{raster.path}' declares {source.scaling}, which are applied before its values are read as "
            f"{unit}"
        )
    return source


def _sar_bands(
    raster: Raster, chosen: Sequence[int] | None, wanted: Sequence[str] | None, warnings: list[str]
) -> list[int]:
    name = f"SAR raster '{raster.path}'"
    present = raster.data_bands()
    if chosen is not None:
        raster.check_bands(chosen)
        if wanted is not None and len(chosen) not in (1, len(wanted)):
            raise UserError(
                f"--sar-bands names {len(chosen)} bands of '{raster.path}', the model reads {len(wanted)} "
                f"({', '.join(wanted)}); name {len(wanted)}, or one for all"
            )
        bands = list(chosen)
    elif wanted is None or len(present) == len(wanted) == 1:
        bands = present
    else:
        bands = _bands_by_name(raster, present, wanted) or present
    if wanted is None:
        return bands
    if len(bands) not in (1, len(wanted)):
        raise UserError(
            f"{name} has {len(present)} bands{_spell_names(raster)}, the model was trained on {len(wanted)} "
            f"({', '.join(wanted)}); choose with --sar-bands"
        )
    if len(bands) < len(wanted) and len(set(wanted)) > 1:
        warnings.append(
            f"{name} gives one polarisation, the model was trained on {', '.join(wanted)}: it is shown the same one "
            f"{len(wanted)} times"
        )
        return bands
    found, meant = [_polarisation(raster, band) for band in bands], [_find_polarisation(text) for text in wanted]
    if all(found) and all(meant) and found != meant:
        warnings.append(f"{name} gives {', '.join(map(str, found))}, the model was trained on {', '.join(wanted)}")
    return bands


def _bands_by_name(raster: Raster, present: Sequence[int], wanted: Sequence[str]) -> list[int] | None:
    """Return the bands whose descriptions name the wanted polarisations, None unless each is named once."""
    meant = [_find_polarisation(text) for text in wanted]
    found = [_polarisation(raster, band) for band in present]
    if None in meant or any(found.count(name) != 1 for name in meant):
        return None
    return [present[found.index(name)] for name in meant]


def _polarisation(raster: Raster, band: int) -> str | None:
    return _find_polarisation(raster.source.descriptions[band - 1] or "")


def _find_polarisation(text: str) -> str | None:
    found = _POLARISATION.search(text.replace("_", " "))
    return found.group(1).upper() if found else None


def _sar_unit(
    raster: Raster, bands: Sequence[int], given: str | None, model: SarUnit | None, warnings: list[str]
) -> SarUnit:
    """What the user says, else what the file says, else the model's unit."""
    if given is not None:
        check_sar_units(given)
    declared = declared_unit(raster, bands)
    if "complex" in raster.source.dtypes[bands[0] - 1]:
        if given not in (None, "linear"):
            raise UserError(
                f"SAR raster '{raster.path}' holds complex samples, which become linear power; leave out --sar-unit"
            )
        return "linear"
    if given is not None and declared is not None and given != declared:
        warnings.append(f"SAR raster '{raster.path}' is read as {given} as you say; its own tags say {declared}")
    if given is not None:
        return given  # type: ignore[return-value]
    if declared is not None:
        return declared
    if model is not None:
        return model
    is_amplitude8 = raster.source.dtypes[bands[0] - 1] == "uint8" and raster.scaling(bands) is None
    return "amplitude8" if is_amplitude8 else "db"


def declared_unit(raster: Raster, bands: Sequence[int]) -> SarUnit | None:
    """Return the unit that the tags of a file name, if it is one that we know.

    Raises:
        UserError: it says that bands are the parts of complex numbers.
    """
    tags = {key.casefold(): value for key, value in raster.source.tags().items()}
    for text in (raster.source.units[bands[0] - 1], tags.get("unit"), tags.get("units")):
        words = (text or "").casefold().split()
        unit = _UNIT_WORDS.get(" ".join(words)) or _UNIT_WORDS.get(words[0] if words else "")
        if unit is not None:
            return unit
        if words[:1] == ["complex"] and "complex" not in raster.source.dtypes[bands[0] - 1]:
            raise UserError(
                f"SAR raster '{raster.path}' holds '{text}' in bands of real numbers; detect it to power first (I * I "
                "+ Q * Q, a band for each polarisation)"
            )
    return None


def open_clouds(stack: ExitStack, path: str) -> CloudSource:
    """Open the cloud mask; `stack` closes it.

    Raises:
        UserError: it is unusable or has several bands.
    """
    return CloudSource(_open(stack, path, "cloud mask"))


def open_place(stack: ExitStack, path: str) -> PlaceSource:
    """Open a raster whose grid is wanted and whose pixels are not; `stack` closes it.

    Raises:
        UserError: it is unusable.
    """
    return PlaceSource(_open(stack, path, "optical"))


def _open(stack: ExitStack, path: str, role: str) -> Raster:
    raster = stack.enter_context(Raster(path, role))
    check_whole(raster)
    return raster


def _numpy_type(raster: Raster, bands: Sequence[int]) -> np.dtype:
    name = raster.source.dtypes[bands[0] - 1]
    return np.dtype(np.complex64 if name.startswith("complex") else name)


def _spell_names(raster: Raster) -> str:
    names = [text for text in raster.source.descriptions if text]
    return f" ({', '.join(names[:16])})" if names else ""
