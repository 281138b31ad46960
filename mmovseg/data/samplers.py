"""Which sample comes when: a training order that can be entered at any iteration without replaying the ones before.

Draw d of a run is sample ``permutation(seed, d // size)[d % size]``: a fresh permutation every epoch, so every sample
is seen once before any is seen twice. Iteration i takes the draws [i * batch, (i + 1) * batch), and rank r of w takes
every w-th of them, so the union over ranks is what one process would have taken. A mix of sources keeps to this, with
an epoch of its own: see `MixOrder`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler

from mmovseg.errors import UserError

Sample = int | tuple[int, int]
"""What a draw takes: a sample by its index, or the optical image of one and the SAR image of another."""


class Order(Protocol):
    """Which sample a draw takes."""

    def __getitem__(self, draw: int) -> int: ...


class DrawOrder:
    """The sample index of any draw, at constant cost apart from one permutation an epoch.

    Args:
        size: number of samples, at least 1.
        seed: of the permutations, one number or several.
    """

    def __init__(self, size: int, seed: int | Sequence[int]) -> None:
        self.size = size
        self.seed = (seed,) if isinstance(seed, int) else tuple(seed)
        self._epoch = -1
        self._permutation = np.zeros(0, dtype=np.int64)

    def __getitem__(self, draw: int) -> int:
        epoch, position = divmod(draw, self.size)
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, np.random.default_rng([*self.seed, epoch]).permutation(self.size)
        return int(self._permutation[position])


class Dealer:
    """Which source any draw is of, and the how many-th draw of that source it is, counted from 0 through all epochs.

    An epoch is ``sum(quotas)`` draws, of which source s has exactly ``quotas[s]``; which ones, is a fresh permutation
    every epoch.

    Args:
        quotas: draws of each source in an epoch, at least 1.
        seed: of the permutations.
    """

    def __init__(self, quotas: Sequence[int], seed: int) -> None:
        self.quotas, self.seed = tuple(quotas), seed
        self._epoch_draws = sum(quotas)
        self._epoch = -1
        self._source = self._turn = np.zeros(0, dtype=np.int64)

    def __getitem__(self, draw: int) -> tuple[int, int]:
        epoch, position = divmod(draw, self._epoch_draws)
        if epoch != self._epoch:
            self._epoch = epoch
            self._deal(np.random.default_rng([self.seed, epoch]))
        source = int(self._source[position])
        return source, epoch * self.quotas[source] + int(self._turn[position])

    def _deal(self, rng: np.random.Generator) -> None:
        """Say of every position of the epoch whose it is, and the how many-th of that source."""
        self._source = rng.permutation(np.repeat(np.arange(len(self.quotas)), self.quotas))
        self._turn = np.zeros_like(self._source)
        for source, quota in enumerate(self.quotas):
            self._turn[self._source == source] = np.arange(quota)


class MixOrder:
    """The sample index of any draw from several sources, each with its share of every epoch.

    Epochs are those of `Dealer`. The draws of one source, counted through all epochs, go through its samples as
    `DrawOrder` does: all are seen once before any is seen twice, however small or large its share.

    Args:
        sizes: samples of each source, at least 1; the index of a sample counts through the sources in their order.
        quotas: draws of each source in an epoch, at least 1.
        tags: a positive number for each source that seeds its permutations, so that a source keeps its order whatever
            it is mixed with.
        seed: of all permutations.
    """

    def __init__(self, sizes: Sequence[int], quotas: Sequence[int], tags: Sequence[int], seed: int) -> None:
        self._dealer = Dealer(quotas, seed)
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._orders = [DrawOrder(size, (seed, tag)) for size, tag in zip(sizes, tags, strict=True)]

    def __getitem__(self, draw: int) -> int:
        source, turn = self._dealer[draw]
        return int(self._first[source]) + self._orders[source][turn]


class ResumableBatchSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (draw, sample index) for one rank.

    Args:
        size: number of samples.
        batch_size: draws an iteration, over all ranks together.
        seed: of the permutations.
        start_iter: the first iteration to yield; may be changed between two `iter` calls.
        rank: of this process.
        world_size: number of processes.
        order: which sample a draw takes; None = `DrawOrder`.

    Raises:
        UserError: `batch_size` is not a positive multiple of `world_size`.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        seed: int = 0,
        start_iter: int = 0,
        rank: int = 0,
        world_size: int = 1,
        order: Order | None = None,
    ) -> None:
        _check_shares(batch_size, world_size)
        self.size, self.batch_size, self.seed, self.start_iter = size, batch_size, seed, start_iter
        self.rank, self.world_size = rank, world_size
        self._order: Order = DrawOrder(size, seed) if order is None else order

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        iteration = self.start_iter
        while True:
            first = iteration * self.batch_size
            draws = range(first + self.rank, first + self.batch_size, self.world_size)
            yield [(draw, self._order[draw]) for draw in draws]
            iteration += 1


class PureBatchSampler(Sampler[list[tuple[int, Sample]]]):
    """Endless batches of (draw, sample) for one rank, each of pairs alone or of unpaired images alone.

    A batch is what one rank takes in one iteration. Batch k of the run is that of rank ``k % world_size`` in iteration
    ``k // world_size``, so every rank has one in every iteration, whatever the sizes, and no end of an epoch at which
    one would wait for another; two ranks may hold different kinds in the same iteration. An epoch is as many batches of
    each kind as its samples fill, in an order that is a new permutation every epoch, so the mix goes by the sizes.
    Pairs, optical and SAR images go through a `DrawOrder` each: all are seen once before any is seen twice, none is
    dropped, and an unpaired image meets another partner every time. A batch that begins in one epoch of its kind and
    ends in the next may hold a sample twice. All follows from `seed`, k and the number of processes: any iteration can
    be entered without those before.

    Args:
        num_pairs: samples 0 .. num_pairs - 1 are pairs; may be 0.
        num_optical: the next ones are unpaired optical images; 0 if and only if `num_sar` is.
        num_sar: the last ones are unpaired SAR images. The larger of the two counts makes an epoch.
        batch_size: samples an iteration, over all ranks together; each is one optical and one SAR image.
        seed: of all permutations.
        start_iter: the first iteration to yield; may be changed between two `iter` calls.
        rank: of this process.
        world_size: number of processes.

    Raises:
        UserError: `batch_size` is not a positive multiple of `world_size`, or there is nothing to draw from.
    """

    def __init__(
        self,
        *,
        num_pairs: int,
        num_optical: int,
        num_sar: int,
        batch_size: int,
        seed: int = 0,
        start_iter: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_shares(batch_size, world_size)
        if (num_optical == 0) != (num_sar == 0):
            raise UserError(
                f"unpaired batches need optical and SAR images, got {num_optical} optical and {num_sar} SAR ones"
            )
        if num_pairs + num_optical == 0:
            raise UserError("pretraining needs pairs or unpaired images; the data set has neither")
        self.batch_size, self.seed, self.start_iter = batch_size, seed, start_iter
        self.rank, self.world_size = rank, world_size
        self.share = batch_size // world_size
        self._first = (0, num_pairs, num_pairs + num_optical)
        counts = {"pairs": num_pairs, "optical": num_optical, "sar": num_sar}
        self._orders = [DrawOrder(size, (seed, zlib.crc32(name.encode()))) for name, size in counts.items()]
        sizes = [num_pairs, max(num_optical, num_sar)]
        self._kinds = [kind for kind in (0, 1) if sizes[kind]]
        batches = [max(1, round(sizes[kind] / self.share)) for kind in self._kinds]
        self._dealer = Dealer(batches, seed)

    def batch(self, number: int) -> list[tuple[int, Sample]]:
        """Return batch `number` of the run."""
        kind, turn = self._dealer[number]
        draws = range(turn * self.share, (turn + 1) * self.share)
        samples = [self._pair(draw) if self._kinds[kind] == 0 else self._unpaired(draw) for draw in draws]
        return [(number * self.share + position, sample) for position, sample in enumerate(samples)]

    def __iter__(self) -> Iterator[list[tuple[int, Sample]]]:
        iteration = self.start_iter
        while True:
            yield self.batch(iteration * self.world_size + self.rank)
            iteration += 1

    def _pair(self, draw: int) -> int:
        return self._orders[0][draw]

    def _unpaired(self, draw: int) -> tuple[int, int]:
        return self._first[1] + self._orders[1][draw], self._first[2] + self._orders[2][draw]


def _check_shares(batch_size: int, world_size: int) -> None:
    if batch_size < 1 or batch_size % world_size:
        raise UserError(f"total batch size {batch_size} cannot be shared equally by {world_size} processes")
