"""The input contract: what a checkpoint expects of its rasters, stored with the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ModalityContract:
    """Sensor facts and normalisation of one modality.

    bands: names in channel order. unit: ``"uint8"`` (0..255), ``"db"``, ``"linear"`` or ``"amplitude8"``.
    clip: values are limited to this range before normalisation, in `unit`. mean, std: per band, in `unit`.
    """

    sensor: str
    bands: tuple[str, ...]
    unit: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ValueError(
                f"{len(self.bands)} bands need as many means and stds, got {len(self.mean)} and {len(self.std)}"
            )


@dataclass(frozen=True)
class InputContract:
    """What a model was trained to read. `gsd_m`: ground sampling distances seen in training, metres, (low, high)."""

    optical: ModalityContract | None
    sar: ModalityContract | None
    gsd_m: tuple[float, float] | None = None
    train_size: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _tuples(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}


def contract_from_dict(content: dict[str, Any]) -> InputContract:
    """Inverse of `InputContract.to_dict`, also after a trip through JSON."""
    parts = [ModalityContract(**_tuples(content[name])) if content.get(name) else None for name in ("optical", "sar")]
    rest = _tuples({key: value for key, value in content.items() if key not in ("optical", "sar")})
    return InputContract(optical=parts[0], sar=parts[1], **rest)
