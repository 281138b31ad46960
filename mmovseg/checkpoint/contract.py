"""The input contract: what a checkpoint expects of its rasters, stored with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mmovseg.data.statistics import ModalityStatistics, read_statistics
from mmovseg.errors import UserError


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
class SourceContract:
    """One source of a mix of sensors, with its own normalisation."""

    name: str
    optical: ModalityContract | None = None
    sar: ModalityContract | None = None


@dataclass(frozen=True)
class InputContract:
    """What a model was trained to read. `gsd_m`: ground sampling distances seen in training, metres, (low, high).

    sources: of a model trained on a mix, each part by itself; `optical` and `sar` then say what all have in common.
    """

    optical: ModalityContract | None
    sar: ModalityContract | None
    gsd_m: tuple[float, float] | None = None
    train_size: int | None = None
    sources: tuple[SourceContract, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        content = asdict(self)
        if not self.sources:  # most models have one source; their files stay as they were
            del content["sources"]
        return content


def _tuples(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}


def contract_from_dict(content: dict[str, Any]) -> InputContract:
    """Inverse of `InputContract.to_dict`, also after a trip through JSON."""
    sources = tuple(SourceContract(str(facts["name"]), **_modalities(facts)) for facts in content.get("sources", ()))
    rest = {key: value for key, value in content.items() if key not in ("optical", "sar", "sources")}
    return InputContract(**_modalities(content), **_tuples(rest), sources=sources)


def _modalities(content: dict[str, Any]) -> dict[str, Any]:
    return {
        name: ModalityContract(**_tuples(content[name])) if content.get(name) else None for name in ("optical", "sar")
    }


def contract_of_sources(
    *,
    statistics: str,
    bands: Sequence[str],
    optical: ModalityContract | Literal["by source"] | None = None,
    sources: Sequence[str | Mapping[str, Any]] | None = None,
    gsd_m: tuple[float, float] | None = None,
    train_size: int | None = None,
) -> InputContract:
    """Return the contract of a model that reads the SAR of one source or of a mix, each by its own statistics.

    Mean and deviation of the whole are those of a mix in equal parts; its clip range is that of all sources, None if
    they differ. Of one source alone they are its own figures.

    Args:
        statistics: file or shipped name, see `mmovseg.data.statistics.read_statistics`.
        bands: names of the SAR channels that all sources give, in order.
        optical: of the teacher, whose normalisation is that of its own training for all sources; "by source" where
            optical images are normalised by source as well, then a source may have one modality alone.
        sources: which: names, or sources as `mix_datasets` takes them, of which those with the ratio 0 do not count.
            None = all of the statistics.
        gsd_m: see `InputContract`.
        train_size: side of the training images, pixels.

    Raises:
        UserError: the statistics are missing or lack a source, or sources differ in unit or number of bands.
    """
    table = read_statistics(statistics)
    by_source = optical == "by source"
    usable = [name for name, found in table.items() if found.sar is not None or (by_source and found.optical)]
    names = usable if sources is None else _names(sources)
    parts = []
    for name in names:
        if name not in usable:
            what = "figures" if by_source else "SAR"
            raise UserError(f"statistics '{statistics}' have no {what} of {name}; they have: {', '.join(usable)}")
        found = table[name]
        if found.sar is not None and len(found.sar.bands) != len(bands):
            raise UserError(
                f"statistics '{statistics}' of source '{name}' have {len(found.sar.bands)} SAR bands, not {len(bands)}"
            )
        sensor = found.sensor or name
        parts.append(
            SourceContract(
                name,
                optical=_of_statistics(found.optical, sensor) if by_source and found.optical else None,
                sar=_of_statistics(found.sar, sensor) if found.sar else None,
            )
        )
    if by_source:
        opticals = [part.optical for part in parts if part.optical is not None]
        optical = _of_all(statistics, "optical images", opticals, ("red", "green", "blue"))
    return InputContract(
        optical=optical if isinstance(optical, ModalityContract) else None,
        sar=_of_all(statistics, "SAR", [part.sar for part in parts if part.sar is not None], bands),
        gsd_m=tuple(gsd_m) if gsd_m is not None else None,  # type: ignore[arg-type]
        train_size=train_size,
        sources=tuple(parts),
    )


def _of_all(
    statistics: str, what: str, parts: Sequence[ModalityContract], bands: Sequence[str]
) -> ModalityContract | None:
    """Return what the sources of one modality have in common, None if there are none."""
    units = sorted({part.unit for part in parts})
    if not parts and what != "SAR":
        return None
    if len(units) != 1:
        raise UserError(
            f"statistics '{statistics}' must have one unit of {what} for all sources, got: {', '.join(units)}"
        )
    mean, std = _of_equal_parts(parts)
    return ModalityContract(
        sensor=", ".join(part.sensor for part in parts),
        bands=tuple(bands),
        unit=units[0],
        mean=mean,
        std=std,
        clip=parts[0].clip if len({part.clip for part in parts}) == 1 else None,
    )


def _of_equal_parts(sars: Sequence[ModalityContract]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each band of a mix in equal parts; of one source, its own to the last digit."""
    if len(sars) == 1:
        return sars[0].mean, sars[0].std
    bands = range(len(sars[0].mean))
    mean = [sum(sar.mean[band] for sar in sars) / len(sars) for band in bands]
    square = [sum(sar.std[band] ** 2 + sar.mean[band] ** 2 for sar in sars) / len(sars) for band in bands]
    std = [(power - value**2) ** 0.5 for power, value in zip(square, mean, strict=True)]
    return tuple(round(value, 4) for value in mean), tuple(round(value, 4) for value in std)


def _names(sources: Sequence[str | Mapping[str, Any]]) -> list[str]:
    return [
        source if isinstance(source, str) else str(source["name"])
        for source in sources
        if isinstance(source, str) or source.get("ratio") != 0
    ]


def _of_statistics(found: ModalityStatistics, sensor: str) -> ModalityContract:
    return ModalityContract(
        sensor=sensor, bands=found.bands, unit=found.unit, mean=found.mean, std=found.std, clip=found.clip
    )
