"""Several data sets as one, drawn from in a given ratio.

Each pair says under `source` where it is from; `mmovseg.data.readers.SourceReader` and `mmovseg.layers.norm.SourceNorm`
go by that. Labels are of no use in a mix, since each set numbers its classes in its own way.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmovseg.data.datasets.folders import load_pair_folder
from mmovseg.data.samplers import MixOrder
from mmovseg.errors import UserError

_KEYS = ("name", "dataset", "options", "folder", "ratio")


@dataclass(frozen=True)
class MixPart:
    """One source of a mix: its `name`, its `size` in pairs, and its `quota` of draws in every epoch."""

    name: str
    size: int
    quota: int


class MixedDataset(list[dict[str, Any]]):
    """Dataset dicts of several sources, one source after the other. `parts` says how many, and how often each is drawn.

    An epoch is ``sum(part.quota for part in parts)`` draws.
    """

    def __init__(self, dicts: Iterable[dict[str, Any]], parts: Sequence[MixPart]) -> None:
        super().__init__(dicts)
        self.parts = tuple(parts)

    def order(self, seed: int) -> MixOrder:
        """Return which pair a draw of the training takes (see `MixOrder`)."""
        parts = self.parts
        tags = [zlib.crc32(part.name.encode()) + 1 for part in parts]  # 0 would be no seed of its own
        return MixOrder([part.size for part in parts], [part.quota for part in parts], tags, seed)


def mix_datasets(*, sources: Sequence[Mapping[str, Any]], epoch_size: int | None = None) -> MixedDataset:
    """Join data sets and say how often each is drawn.

    Args:
        sources: one mapping each:
            `name`: of the source, without a dot or slash, for example ``spacenet6``;
            `dataset`: dataset dicts, or the name of a registered data set, then with `options` for its loader;
            `folder`: instead of `dataset`, the arguments of `load_pair_folder`;
            `ratio`: its share of the draws, relative to those of the others; 0 leaves the source out, and a registered
            set or a folder is then not looked for. Without any ratio sources are drawn by their sizes, so that an epoch
            takes every pair once.
        epoch_size: draws of an epoch, None = the number of pairs. Shares are rounded to whole draws of an epoch, at
            least one.

    Returns:
        All pairs with `source` set and ``<source>/`` before their `image_id`. Each source goes through all its pairs
        before it repeats one, whatever the ratio.

    Raises:
        UserError: no source, a wrong key, name, ratio or data set, some sources with a ratio and some without, or an
            image_id that comes twice in a source.
    """
    for source in sources:
        _check_source(source)
    names = [str(source["name"]) for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"the mix names the source '{twice[0]}' more than once")
    used = [source for source in sources if source.get("ratio") != 0]
    if not used:
        raise UserError("the mix has no source with a ratio above 0")
    loaded = [_load(source) for source in used]
    sizes = [len(dicts) for dicts in loaded]
    total = sum(sizes) if epoch_size is None else epoch_size
    if total < len(used):
        raise UserError(f"an epoch of {total} draws cannot hold the {len(used)} sources of the mix")
    quotas = _quotas(_weights(used, sizes), total)
    parts = [MixPart(str(source["name"]), size, quota) for source, size, quota in zip(used, sizes, quotas, strict=True)]
    return MixedDataset((item for dicts in loaded for item in dicts), parts)


def _check_source(source: Mapping[str, Any]) -> None:
    unknown = sorted(set(source) - set(_KEYS))
    if unknown:
        raise UserError(f"a source of a mix has no key '{unknown[0]}'; known: {', '.join(_KEYS)}")
    name = source.get("name")
    if not isinstance(name, str) or not name or set("./") & set(name):
        raise UserError(f"a source of a mix needs a name without a dot or slash, got {name!r}")
    if (source.get("dataset") is None) == (source.get("folder") is None):
        raise UserError(f"source '{name}' of the mix needs either a dataset or a folder")
    ratio = source.get("ratio")
    if ratio is not None and not 0 <= ratio < float("inf"):
        raise UserError(f"source '{name}' of the mix has the ratio {ratio}; it must be a number from 0 up")


def _load(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    name, dataset, options = source["name"], source.get("dataset"), dict(source.get("options") or {})
    if dataset is None:
        dataset = load_pair_folder(**_folder(name, source["folder"]))
    if isinstance(dataset, str):
        from mmovseg.data.datasets.catalog import get_dataset  # the registered sets are not needed by lists

        dataset = get_dataset(dataset, **options)
    elif options:
        raise UserError(f"source '{name}' of the mix has options, but only the name of a registered data set takes any")
    if len(dataset) == 0:
        raise UserError(f"source '{name}' of the mix is empty")
    dicts, seen = [], set()
    for number, item in enumerate(dataset):
        image_id = str(item.get("image_id", number))
        if image_id in seen:
            raise UserError(f"source '{name}' of the mix has the image_id '{image_id}' more than once")
        seen.add(image_id)
        dicts.append({**item, "source": name, "image_id": f"{name}/{image_id}"})
    return dicts


def _folder(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(load_pair_folder).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise UserError(f"the folder of source '{name}' has no option '{unknown[0]}'; known: {', '.join(known)}")
    return {"optical_dir": None, **arguments}


def _weights(sources: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> list[float]:
    ratios = [source.get("ratio") for source in sources]
    if all(ratio is None for ratio in ratios):
        return [float(size) for size in sizes]
    if None in ratios:
        without = sources[ratios.index(None)]["name"]
        raise UserError(f"source '{without}' of the mix has no ratio, but another one has; give one to all or to none")
    return [float(ratio) for ratio in ratios if ratio is not None]


def _quotas(weights: Sequence[float], total: int) -> list[int]:
    """Share `total` draws by largest remainders, at least one each."""
    exact = [total * weight / sum(weights) for weight in weights]
    quotas = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: (quotas[index] - exact[index], index))
    for index in by_remainder[: total - sum(quotas)]:
        quotas[index] += 1
    return [max(1, quota) for quota in quotas]
