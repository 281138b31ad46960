"""Which sample comes when: a training order that can be entered at any iteration without replaying the ones before.

Draw d of a run is sample ``permutation(seed, d // size)[d % size]``: a fresh permutation every epoch, so every sample
is seen once before any is seen twice. Iteration i takes the draws [i * batch, (i + 1) * batch), and rank r of w takes
every w-th of them, so the union over ranks is what one process would have taken. A mix of sources keeps to this, with
an epoch of its own: see `MixOrder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler

from mmovseg.errors import UserError


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


class MixOrder:
    """The sample index of any draw from several sources, each with its share of every epoch.

    An epoch is ``sum(quotas)`` draws, of which source s has exactly ``quotas[s]``; which ones, is a fresh permutation
    every epoch. The draws of one source, counted through all epochs, go through its samples as `DrawOrder` does: all
    are seen once before any is seen twice, however small or large its share.

    Args:
        sizes: samples of each source, at least 1; the index of a sample counts through the sources in their order.
        quotas: draws of each source in an epoch, at least 1.
        tags: a positive number for each source that seeds its permutations, so that a source keeps its order whatever
            it is mixed with.
        seed: of all permutations.
    """

    def __init__(self, sizes: Sequence[int], quotas: Sequence[int], tags: Sequence[int], seed: int) -> None:
        self.quotas, self.seed = tuple(quotas), seed
        self._epoch_draws = sum(quotas)
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._orders = [DrawOrder(size, (seed, tag)) for size, tag in zip(sizes, tags, strict=True)]
        self._epoch = -1
        self._source = self._turn = np.zeros(0, dtype=np.int64)

    def __getitem__(self, draw: int) -> int:
        epoch, position = divmod(draw, self._epoch_draws)
        if epoch != self._epoch:
            self._epoch = epoch
            self._deal(np.random.default_rng([self.seed, epoch]))
        source = int(self._source[position])
        turn = epoch * self.quotas[source] + int(self._turn[position])
        return int(self._first[source]) + self._orders[source][turn]

    def _deal(self, rng: np.random.Generator) -> None:
        """Say of every position of the epoch whose it is, and the how many-th of that source."""
        self._source = rng.permutation(np.repeat(np.arange(len(self.quotas)), self.quotas))
        self._turn = np.zeros_like(self._source)
        for source, quota in enumerate(self.quotas):
            self._turn[self._source == source] = np.arange(quota)


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
        if batch_size < 1 or batch_size % world_size:
            raise UserError(f"total batch size {batch_size} cannot be shared equally by {world_size} processes")
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
