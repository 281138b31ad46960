"""Check that an encoder that comes from a file reads what the model at hand will give it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mmovseg.checkpoint.contract import InputContract, ModalityContract, contract_from_dict
from mmovseg.checkpoint.load import read_metadata
from mmovseg.errors import UserError

logger = logging.getLogger(__name__)

# Starts that are no aligned encoder: timm's own weights, shipped ones, and RGB filters brought to other channels.
_OTHER_START = "timm"
_OTHER_PREFIXES = ("shipped://", "clip:", "folded:")
# Bands of an uncalibrated picture; nobody says of which polarisation, so they fit any.
_UNNAMED = frozenset({"amplitude", "grey"})


def check_encoder_contract(
    weights: str | None,
    own: InputContract | None,
    *,
    role: str,
    modality: Literal["optical", "sar"],
    bands: Sequence[int] | None = None,
    has_own_norm: bool = False,
) -> None:
    """Compare the input contract in an encoder's file with the model's.

    Nothing is compared when `weights` is no file, or when the file or the model says nothing about the modality.
    Another normalisation is a warning: features then shift, but they may still serve. An encoder of a mix has read each
    source by its own statistics, so a model that reads its own data in the same way (a contract of
    `contract_of_sources`) normalises alike, whatever the constants are.

    Args:
        weights: as given to `TimmEncoder`.
        own: contract of the model.
        role: what the model calls the encoder, for messages.
        modality: which part of the contracts.
        bands: which of the model's channels the encoder is given, from 0; None = all. Repeated ones count once.
        has_own_norm: the encoder is given values by a norm of its own, so that of the contract says nothing of it.

    Raises:
        UserError: the file is unreadable, or its encoder reads another unit, another number of bands or other bands.
    """
    if weights is None or weights == _OTHER_START or weights.startswith(_OTHER_PREFIXES) or own is None:
        return
    theirs = _read_contract(weights)
    wanted: ModalityContract | None = getattr(own, modality)
    given: ModalityContract | None = getattr(theirs, modality) if theirs is not None else None
    if theirs is None or given is None or wanted is None:
        return
    difference = _difference(given, wanted, bands)
    if difference is not None:
        raise UserError(f"{role}: '{weights}' was trained on {modality} with {difference[0]}, not {difference[1]}")
    if has_own_norm:
        return
    parts = _parts(theirs, modality)
    if parts:  # trained on a mix, each source by its own statistics: those of a new source fit as well
        if not _parts(own, modality) and not any(_same_normalisation(part, wanted) for part in parts):
            logger.warning(
                "%s: '%s' was trained on %s, each normalised by its own statistics, but this model normalises %s with "
                "%s; measure your data with tools/compute_statistics.py and give the model's norm these constants",
                role,
                weights,
                ", ".join(source.name for source in theirs.sources),
                modality,
                _normalisation(wanted),
            )
    elif not _same_normalisation(given, wanted):
        logger.warning(
            "%s: '%s' was trained on %s with %s, this model normalises with %s; its features may shift",
            role,
            weights,
            modality,
            _normalisation(given),
            _normalisation(wanted),
        )


def _parts(contract: InputContract, modality: str) -> list[ModalityContract]:
    return [part for source in contract.sources if (part := getattr(source, modality)) is not None]


def _read_contract(path: str) -> InputContract | None:
    text = read_metadata(path).get("input_contract")
    try:
        content = json.loads(text) if text is not None else None
        return contract_from_dict(content) if content is not None else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"the input contract in '{path}' cannot be read: {error}") from error


def _difference(
    given: ModalityContract, wanted: ModalityContract, picked: Sequence[int] | None
) -> tuple[str, str] | None:
    """What makes the one unusable as the other, in words for both; None when nothing does."""
    if given.unit != wanted.unit:
        return f"the unit '{given.unit}'", f"'{wanted.unit}'"
    theirs, ours = tuple(given.bands), tuple(wanted.bands)  # a config gives lists
    if picked is not None and all(0 <= index < len(ours) for index in picked):  # others are refused when data comes
        theirs, ours = tuple(dict.fromkeys(theirs)), tuple(dict.fromkeys(ours[index] for index in picked))
    unnamed = _UNNAMED.issuperset(theirs) or _UNNAMED.issuperset(ours)
    if len(theirs) != len(ours) or not (theirs == ours or unnamed):
        return f"{len(theirs)} bands ({', '.join(theirs)})", f"{len(ours)} ({', '.join(ours)})"
    return None


def _same_normalisation(one: ModalityContract, other: ModalityContract) -> bool:
    if (one.clip is None) != (other.clip is None):
        return False
    pairs: list[tuple[Sequence[float], Sequence[float]]] = [(one.mean, other.mean), (one.std, other.std)]
    if one.clip is not None and other.clip is not None:
        pairs.append((one.clip, other.clip))
    return all(np.allclose(a, b, rtol=1e-3) for a, b in pairs)


def _normalisation(contract: ModalityContract) -> str:
    def listed(values: Sequence[float]) -> str:
        return "(" + ", ".join(f"{value:g}" for value in values) + ")"

    clip = f", clip {listed(contract.clip)}" if contract.clip is not None else ""
    return f"mean {listed(contract.mean)}, std {listed(contract.std)}{clip}"
