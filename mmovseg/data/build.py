"""Loaders over dataset dicts. They use torch directly, since detectron2 0.6 and later differ in theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from detectron2.data.common import DatasetFromList
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from mmovseg.data.datasets.mix import MixedDataset
from mmovseg.data.mapper import DRAW_KEY
from mmovseg.data.sample import ModelInput
from mmovseg.data.samplers import ResumableBatchSampler, Sample
from mmovseg.errors import UserError

Mapper = Callable[[dict[str, Any]], ModelInput]


class TrainSampler(Protocol):
    """Endless batches of (draw, sample) of one rank, from any iteration on."""

    batch_size: int
    start_iter: int

    def __iter__(self) -> Iterator[list[tuple[int, Sample]]]: ...


@runtime_checkable
class OwnBatches(Protocol):
    """Dataset dicts that say themselves what a batch is, for example of pairs alone or of unpaired images alone."""

    def batch_sampler(
        self, *, batch_size: int, seed: int, start_iter: int, rank: int, world_size: int
    ) -> TrainSampler: ...


class TrainLoader:
    """Endless batches for training. Iterating again starts anew at `start_iter`.

    Yields lists of model inputs, the share of this process in a batch. Batch i is the same whether reached by
    iterating or by starting there, for any number of workers.
    """

    def __init__(self, loader: DataLoader, sampler: TrainSampler) -> None:
        self._loader, self._sampler = loader, sampler

    @property
    def batch_size(self) -> int:
        """Samples an iteration, over all processes together."""
        return self._sampler.batch_size

    def set_start_iter(self, start_iter: int) -> None:
        """Let the next `iter` begin at this iteration."""
        self._sampler.start_iter = int(start_iter)

    def __iter__(self) -> Iterator[list[ModelInput]]:
        return iter(self._loader)


def build_train_loader(
    *,
    dataset: Sequence[dict[str, Any]],
    mapper: Mapper,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    start_iter: int = 0,
) -> TrainLoader:
    """Build the endless, resumable training loader of this process.

    Args:
        dataset: dataset dicts; a mix (`mmovseg.data.datasets.mix_datasets`) is drawn from by its ratios, and one that
            has a `batch_sampler` (see `OwnBatches`) by that.
        mapper: dataset dict -> model input; gets the number of the draw under `_draw`, and where the SAR image is to be
            that of another sample its dict under `sar_from`.
        batch_size: samples an iteration over all processes together.
        num_workers: reading processes; 0 reads in this one.
        seed: of the order.
        start_iter: first iteration, for example that of a checkpoint.

    Raises:
        UserError: the data set is empty, or the batch cannot be shared by the processes.
    """
    _check_not_empty(dataset)
    options: dict[str, int] = dict(batch_size=batch_size, seed=seed, start_iter=start_iter)
    options |= dict(rank=comm.get_rank(), world_size=comm.get_world_size())
    sampler: TrainSampler
    if isinstance(dataset, OwnBatches):
        sampler = dataset.batch_sampler(**options)
    else:
        order = dataset.order(seed) if isinstance(dataset, MixedDataset) else None
        sampler = ResumableBatchSampler(len(dataset), **options, order=order)
    loader = _Loader(
        _MappedDataset(dataset, mapper),
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=_as_list,
        generator=_own_generator(seed),
    )
    return TrainLoader(loader, sampler)


def build_test_loader(
    *, dataset: Sequence[dict[str, Any]], mapper: Mapper, batch_size: int = 1, num_workers: int = 0
) -> DataLoader:
    """Build a loader that gives every sample exactly once over all processes, in order.

    Args:
        dataset: dataset dicts.
        mapper: dataset dict -> model input.
        batch_size: samples a step of this process; the last batch may be smaller.
        num_workers: reading processes; 0 reads in this one.

    Returns:
        Iterable of lists of model inputs, with a length.

    Raises:
        UserError: the data set is empty.
    """
    _check_not_empty(dataset)
    return _Loader(
        _MappedDataset(dataset, mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        num_workers=num_workers,
        collate_fn=_as_list,
        generator=_own_generator(0),
    )


class _Failure:
    """Bad input met while mapping, on its way to the process that reports it."""

    def __init__(self, message: str) -> None:
        self.message = message


class _Loader(DataLoader):
    """A loader that raises a worker's `UserError` as it was; torch would put a traceback into its message."""

    def __iter__(self) -> Iterator[list[ModelInput]]:
        for batch in super().__iter__():
            for item in batch:
                if isinstance(item, _Failure):
                    raise UserError(item.message)
            yield batch


class _MappedDataset(Dataset):
    """Map dict number `index`; a training index is (draw, index), or (draw, (index, index of the SAR image))."""

    def __init__(self, dataset: Sequence[dict[str, Any]], mapper: Mapper) -> None:
        # Serialised once, because a forked worker that touches Python objects copies their memory page by page.
        self._dicts = DatasetFromList(list(dataset), copy=False)
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, index: int | tuple[int, Sample]) -> ModelInput | _Failure:
        if isinstance(index, tuple):
            draw, sample = index
            position, partner = sample if isinstance(sample, tuple) else (sample, None)
            dataset_dict = {**self._dicts[position], DRAW_KEY: draw}
            if partner is not None:
                dataset_dict["sar_from"] = dict(self._dicts[partner])
        else:
            dataset_dict = dict(self._dicts[index])
        try:
            return self._mapper(dataset_dict)
        except UserError as error:
            return _Failure(str(error))


def _as_list(items: list[ModelInput]) -> list[ModelInput]:
    return items


def _own_generator(seed: int) -> torch.Generator:
    """Keep the loader from drawing its workers' seeds out of the global generator, which belongs to the model."""
    return torch.Generator().manual_seed(seed)


def _check_not_empty(dataset: Sequence[dict[str, Any]]) -> None:
    if len(dataset) == 0:
        raise UserError("the data set is empty: no sample to load; check its name, folder and split")
