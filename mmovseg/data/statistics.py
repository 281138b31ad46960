"""Statistics of the pixels of each source: computed in one pass, kept as JSON, read by configs.

The file: ``{"version": 1, "sources": {name: {"samples", "origin", "sensor", "optical": {...}, "sar": {...}}}}``. A
modality has `unit`, `bands`, `pixels`, `mean`, `std`, `minimum`, `maximum`, `percentiles` (each a list over the bands)
and `clip`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmovseg.data.sample import DatasetDict, RawSample, Reader
from mmovseg.errors import UserError

PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
CLIP_PERCENTILES = (0.1, 99.9)
"""What lies beyond is limited before SAR is normalised: corner reflectors, the noise floor, and rasters' borders."""

VERSION = 1
_FOLDER = Path(__file__).parent / "source_statistics"
_KEY_BITS = 20  # sign, exponent and 11 bits of mantissa
_DROPPED_BITS = 32 - _KEY_BITS


@dataclass(frozen=True)
class ModalityStatistics:
    """Of all valid pixels of one modality, in `unit`, one number a band.

    mean, std (of the population), minimum, maximum: exact. percentiles: percent as text -> the smallest value that so
    many percent do not exceed, exact for whole numbers up to 4096 and else to 1/2048 of the value. clip: low and high
    for all bands, or None. pixels: valid ones, 0 for figures that were not measured here.
    """

    unit: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: tuple[float, float] | None = None
    pixels: int = 0
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    percentiles: Mapping[str, tuple[float, ...]] | None = None


@dataclass(frozen=True)
class SourceStatistics:
    """One source. samples: how many were read. origin: how the figures came about. sensor: for the input contract."""

    samples: int
    origin: str
    optical: ModalityStatistics | None = None
    sar: ModalityStatistics | None = None
    sensor: str = ""


@dataclass
class RasterSummary:
    """What one raster adds: counts, means, sums of squared deviations and extremes a band, and sparse histograms."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    bins: list[tuple[np.ndarray, np.ndarray]]


def summarise(raster: np.ndarray, valid: np.ndarray | None) -> RasterSummary:
    """Summarise the valid pixels of one raster.

    Args:
        raster: (H, W, P), any real type; values that are not finite are invalid.
        valid: (H, W) bool, None = all.
    """
    keep = np.isfinite(raster).all(axis=2)
    rows = np.ascontiguousarray(raster[keep if valid is None else keep & valid].T)  # a band after the other: faster
    bands, count = rows.shape
    if count == 0:
        zeros = np.zeros(bands)
        return RasterSummary(0, zeros, zeros, zeros + np.inf, zeros - np.inf, [])
    mean, squares, bins = np.zeros(bands), np.zeros(bands), []
    for band, row in enumerate(rows):
        values = row.astype(np.float64)
        mean[band] = values.mean()
        squares[band] = np.square(values - mean[band]).sum()
        counts = np.bincount(_bin_of(row), minlength=1 << _KEY_BITS)
        filled = np.flatnonzero(counts)
        bins.append((filled, counts[filled]))
    return RasterSummary(count, mean, squares, rows.min(axis=1), rows.max(axis=1), bins)


class RunningStatistics:
    """Statistics over rasters that come one after the other; memory does not grow with their number.

    Adding the same rasters in the same order gives the same figures to the bit.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = self._minimum = self._maximum = np.zeros(0)
        self._counts = np.zeros((0, 1 << _KEY_BITS), dtype=np.int64)

    def add(self, part: RasterSummary, *, source: str = "raster") -> None:
        """Take in one raster.

        Raises:
            UserError: it has another number of bands than those before; `source` is named.
        """
        if not len(self._mean):
            zeros = np.zeros(len(part.mean))
            self._mean, self._squares = zeros, zeros
            self._minimum, self._maximum = zeros + np.inf, zeros - np.inf
            self._counts = np.zeros((len(zeros), 1 << _KEY_BITS), dtype=np.int64)
        if len(part.mean) != len(self._mean):
            raise UserError(f"'{source}' has {len(part.mean)} bands, but those before had {len(self._mean)}")
        if part.count == 0:
            return
        total = self.count + part.count
        step = part.mean - self._mean
        self._mean = self._mean + step * (part.count / total)
        self._squares = self._squares + part.squares + np.square(step) * (self.count * part.count / total)
        self._minimum = np.minimum(self._minimum, part.minimum)
        self._maximum = np.maximum(self._maximum, part.maximum)
        for band, (filled, counts) in enumerate(part.bins):
            self._counts[band, filled] += counts
        self.count = total

    def percentiles(self, percents: Sequence[float]) -> list[tuple[float, ...]]:
        """Return for each of `percents` the smallest value of each band that so many pixels do not exceed.

        That is the nearest rank; nothing is interpolated.
        """
        found = []
        for counts, low, high in zip(self._counts, self._minimum, self._maximum, strict=True):
            filled = np.flatnonzero(counts)
            upto = np.cumsum(counts[filled])
            ranks = [max(1, math.ceil(self.count * percent / 100 - 1e-9)) for percent in percents]
            values = _value_of(filled[np.searchsorted(upto, ranks)])
            found.append(np.clip(values, low, high).tolist())
        return list(zip(*found, strict=True))

    def finish(self, *, unit: str, bands: Sequence[str], with_clip: bool) -> ModalityStatistics | None:
        """Return the figures, rounded to six digits; None if no pixel was valid."""
        if self.count == 0:
            return None
        values = [_rounded(row) for row in self.percentiles(PERCENTILES)]
        table = {f"{percent:g}": row for percent, row in zip(PERCENTILES, values, strict=True)}
        low, high = (_rounded(row) for row in self.percentiles(CLIP_PERCENTILES))
        return ModalityStatistics(
            unit=unit,
            bands=tuple(bands),
            mean=_rounded(self._mean),
            std=_rounded(np.sqrt(self._squares / self.count)),
            clip=(min(low), max(high)) if with_clip else None,
            pixels=self.count,
            minimum=_rounded(self._minimum),
            maximum=_rounded(self._maximum),
            percentiles=table,
        )


class _Summarise:
    """Dataset dict -> its source and the summaries of its rasters, for a loader with workers."""

    def __init__(self, reader: Reader, default_source: str) -> None:
        self.reader, self.default_source = reader, default_source

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        wanted = {key: value for key, value in dataset_dict.items() if key != "sem_seg_file_name"}
        raw = self.reader(wanted)  # type: ignore[arg-type]
        source = str(dataset_dict.get("source", self.default_source))
        found: dict[str, Any] = {"source": source, "file_name": str(dataset_dict.get("file_name", "?"))}
        for modality, key in (("optical", "file_name"), ("sar", "sar_file_name")):
            raster = getattr(raw, modality)
            if "world" in dataset_dict and key not in dataset_dict:
                continue  # a generated window always has both views, but this one stands for an image of the other
            if raster is not None:
                unit, bands = _describe(self.reader, dataset_dict, raw, modality)
                found[modality] = (summarise(raster, getattr(raw, f"{modality}_valid")), unit, bands)
        return found


def compute_statistics(
    dataset: Sequence[dict[str, Any]],
    reader: Reader,
    *,
    default_source: str,
    max_samples: int | None = None,
    num_workers: int = 0,
    show_progress: bool = False,
) -> dict[str, SourceStatistics]:
    """Read every raster once and return the statistics of each source.

    Pixels are counted as the reader gives them, so in the unit and with the bands that normalisation sees; nothing is
    augmented. The result does not depend on `num_workers`.

    Args:
        dataset: dataset dicts, of one source or of a mix.
        reader: theirs.
        default_source: name of the source of dicts that name none.
        max_samples: read at most so many of each source, spread evenly; None = all.
        num_workers: reading processes; 0 reads in this one.
        show_progress: draw a progress bar on stderr.

    Raises:
        UserError: no sample, a file is unusable, or the rasters of a source differ in bands or unit.
    """
    from mmovseg.data.build import build_test_loader  # it needs detectron2, which readers of the figures do not

    chosen = _spread(dataset, default_source, max_samples)
    mapper: Any = _Summarise(reader, default_source)  # it gives summaries and no model inputs
    loader = build_test_loader(dataset=chosen, mapper=mapper, batch_size=1, num_workers=num_workers)
    sums: dict[tuple[str, str], RunningStatistics] = {}
    facts: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    samples: dict[str, int] = {}
    for (found,) in tqdm(loader, unit="pair", disable=not show_progress):
        source = found["source"]
        samples[source] = samples.get(source, 0) + 1
        for modality in ("optical", "sar"):
            if modality not in found:
                continue
            summary, unit, bands = found[modality]
            key = (source, modality)
            known = facts.setdefault(key, (unit, bands))
            sums.setdefault(key, RunningStatistics()).add(summary, source=found["file_name"])
            if known != (unit, bands):
                raise UserError(f"'{found['file_name']}' is {unit} {bands}, but source '{source}' began with {known}")
    sizes = _sizes(dataset, default_source)
    return {
        source: SourceStatistics(
            samples=count,
            origin=f"measured on {count} of {sizes[source]}",
            sensor=source,
            **{
                modality: sums[key].finish(unit=facts[key][0], bands=facts[key][1], with_clip=modality == "sar")
                for modality in ("optical", "sar")
                if (key := (source, modality)) in sums
            },
        )
        for source, count in samples.items()
    }


def write_statistics(path: str | Path, sources: Mapping[str, SourceStatistics]) -> None:
    """Write a file of statistics, atomically.

    Raises:
        UserError: the path does not end in ``.json`` or cannot be written.
    """
    from mmovseg.checkpoint.save import atomic_write  # contracts, which lie beside it, read statistics

    if Path(path).suffix != ".json":
        raise UserError(f"statistics are written as .json, but the path is '{path}'")
    content = {"version": VERSION, "sources": {name: asdict(source) for name, source in sources.items()}}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_statistics(path: str | Path) -> dict[str, SourceStatistics]:
    """Read statistics by source.

    Args:
        path: a ``.json`` of `write_statistics`, or the name of a shipped one (`shipped_statistics`).

    Raises:
        UserError: there is no such file, or it is not one of statistics.
    """
    file = Path(path) if str(path).endswith(".json") else _FOLDER / f"{path}.json"
    if not file.is_file():
        if str(path).endswith(".json"):
            raise UserError(
                f"statistics '{path}' do not exist; measure them: python tools/compute_statistics.py "
                f"--config-file <the config that reads them> --output {path}"
            )
        known = ", ".join(shipped_statistics())
        raise UserError(f"statistics '{path}' do not exist: neither a .json file nor one of the shipped ({known})")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): _source(facts) for name, facts in content["sources"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"file '{file}' holds no statistics of sources: {' '.join(str(error).split())}") from error


def shipped_statistics() -> list[str]:
    """Return the names of the statistics that come along."""
    return sorted(file.stem for file in _FOLDER.glob("*.json"))


def choose_statistics(
    path: str | Path, modality: str, sources: Sequence[str] | None = None
) -> dict[str, ModalityStatistics]:
    """Return the statistics of one modality by source.

    Args:
        path: see `read_statistics`.
        modality: ``optical`` or ``sar``.
        sources: which, in this order; None = all that have the modality.

    Raises:
        UserError: from `read_statistics`, or a source is missing or lacks the modality.
    """
    table = {name: getattr(source, modality) for name, source in read_statistics(path).items()}
    table = {name: found for name, found in table.items() if found is not None}
    missing = [name for name in sources or () if name not in table]
    if missing or not table:
        name = missing[0] if missing else "any source"
        raise UserError(f"statistics '{path}' have no {modality} of {name}; they have: {', '.join(table) or 'nothing'}")
    return table if sources is None else {name: table[name] for name in sources}


def _spread(dataset: Sequence[dict[str, Any]], default_source: str, most: int | None) -> list[dict[str, Any]]:
    if most is None:
        return list(dataset)
    if most < 1:
        raise UserError(f"at least one pair of each source must be read, got {most}")
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(dataset):
        groups.setdefault(str(item.get("source", default_source)), []).append(index)
    taken = [
        indices[position * len(indices) // min(most, len(indices))]
        for indices in groups.values()
        for position in range(min(most, len(indices)))
    ]
    return [dataset[index] for index in taken]


def _sizes(dataset: Sequence[dict[str, Any]], default_source: str) -> dict[str, str]:
    """Return how much there is of each source, in words: pairs, or images where some have no partner."""
    counts: Counter[str] = Counter()
    unpaired = set()
    for item in dataset:
        source = str(item.get("source", default_source))
        counts[source] += 1
        if ("file_name" in item) != ("sar_file_name" in item):
            unpaired.add(source)
    return {source: f"{count} {'images' if source in unpaired else 'pairs'}" for source, count in counts.items()}


def _describe(
    reader: Reader, dataset_dict: Mapping[str, Any], raw: RawSample, modality: str
) -> tuple[str, tuple[str, ...]]:
    """Return unit and band names of a modality, as far as reader and raster tell them."""
    count = getattr(raw, modality).shape[2]
    if modality == "optical":
        return "uint8", ("red", "green", "blue") if count == 3 else tuple(f"band {i + 1}" for i in range(count))
    own: Callable[[DatasetDict], RawSample] = getattr(reader, "readers", {}).get(dataset_dict.get("source"), reader)
    named = getattr(own, "sar_polarisations", None) or getattr(own, "sar_polarisations_in", None)
    named = named or raw.facts.get("sar_channels")
    bands = tuple(map(str, named)) if named and len(named) == count else tuple(f"band {i + 1}" for i in range(count))
    stated = str(getattr(own, "sar_unit", raw.facts.get("sar_unit", "db")))
    return "db" if stated.lower().startswith("db") else stated, bands


def _source(facts: Mapping[str, Any]) -> SourceStatistics:
    parts = {name: _modality(facts[name]) if facts.get(name) else None for name in ("optical", "sar")}
    return SourceStatistics(
        samples=int(facts["samples"]), origin=str(facts["origin"]), sensor=str(facts.get("sensor", "")), **parts
    )


def _modality(facts: Mapping[str, Any]) -> ModalityStatistics:
    known = {field.name for field in fields(ModalityStatistics)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in facts.items() if key in known
    }
    if values.get("percentiles"):
        values["percentiles"] = {key: tuple(value) for key, value in values["percentiles"].items()}
    return ModalityStatistics(**values)


def _bin_of(values: np.ndarray) -> np.ndarray:
    """Number bins of nearly equal relative width in the order of the values."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> _DROPPED_BITS).astype(np.int64)


def _value_of(bins: np.ndarray) -> np.ndarray:
    """The value of a bin that is nearest to zero: whole numbers up to 4096 are their own."""
    ordered = bins.astype(np.uint32) << np.uint32(_DROPPED_BITS)
    positive = bins >= 1 << (_KEY_BITS - 1)
    negative = ~(ordered | np.uint32((1 << _DROPPED_BITS) - 1))
    bits = np.where(positive, ordered & np.uint32(0x7FFFFFFF), negative).astype(np.uint32)
    return bits.view(np.float32).astype(np.float64)


def _rounded(values: Any) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
