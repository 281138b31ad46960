"""Which sample comes when: a training order that can be entered at any iteration without replaying the ones before.

Draw d of a run is sample ``permutation(seed, d // size)[d % size]``: a fresh permutation every epoch, so every sample
is seen once before any is seen twice. Iteration i takes the draws [i * batch, (i + 1) * batch), and rank r of w takes
every w-th of them, so the union over ranks is what one process would have taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from mmovseg.errors import UserError


class DrawOrder:
    """The sample index of any draw, at constant cost apart from one permutation an epoch.

    Args:
        size: number of samples, at least 1.
        seed: of the permutations.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._epoch = -1
        self._permutation = np.zeros(0, dtype=np.int64)

    def __getitem__(self, draw: int) -> int:
        epoch, position = divmod(draw, self.size)
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.size)
        return int(self._permutation[position])


class ResumableBatchSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (draw, sample index) for one rank.

    Args:
        size: number of samples.
        batch_size: draws an iteration, over all ranks together.
        seed: of the permutations.
        start_iter: the first iteration to yield; may be changed between two `iter` calls.
        rank: of this process.
        world_size: number of processes.

    Raises:
        UserError: `batch_size` is not a positive multiple of `world_size`.
    """

    def __init__(
        self, size: int, *, batch_size: int, seed: int = 0, start_iter: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise UserError(f"total batch size {batch_size} cannot be shared equally by {world_size} processes")
        self.size, self.batch_size, self.seed, self.start_iter = size, batch_size, seed, start_iter
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, iteration = DrawOrder(self.size, self.seed), self.start_iter
        while True:
            first = iteration * self.batch_size
            draws = range(first + self.rank, first + self.batch_size, self.world_size)
            yield [(draw, order[draw]) for draw in draws]
            iteration += 1
