"""Learning-rate schedules with their arithmetic in sight."""

from __future__ import annotations

import math
from typing import Literal

from fvcore.common.param_scheduler import ParamScheduler

from mmovseg.errors import UserError


class WarmupSchedule(ParamScheduler):
    """Factor on every learning rate: linear warm-up times a decay over the whole training.

    At iteration i of `max_iter`, with t = i / max_iter:
        warm(i)  = warmup_factor + (1 - warmup_factor) * i / warmup_iters  for i < warmup_iters, else 1
        cosine   = (1 + cos(pi * t)) / 2,   poly = (1 - t) ** power,   constant = 1
        factor   = warm(i) * (end_factor + (1 - end_factor) * decay(t))
    """

    def __init__(
        self,
        *,
        max_iter: int,
        decay: Literal["cosine", "poly", "constant"] = "cosine",
        warmup_iters: int = 0,
        warmup_factor: float = 0.001,
        power: float = 0.9,
        end_factor: float = 0.0,
    ) -> None:
        """Check and keep the settings.

        Args:
            max_iter: iterations of the whole training.
            decay: shape after (and during) the warm-up.
            warmup_iters: length of the warm-up; 0 = none. A training shorter than this never leaves it.
            warmup_factor: factor at iteration 0.
            power: of ``poly``.
            end_factor: what the decay ends at, as a part of the initial rate.

        Raises:
            UserError: unknown `decay`, or a negative warm-up.
        """
        if decay not in ("cosine", "poly", "constant"):
            raise UserError(f"lr_multiplier.decay is '{decay}' but must be one of cosine, poly, constant")
        if warmup_iters < 0:
            raise UserError(f"lr_multiplier.warmup_iters is {warmup_iters} but must not be negative")
        self.max_iter = max_iter
        self.decay = decay
        self.warmup_iters = warmup_iters
        self.warmup_factor = warmup_factor
        self.power = power
        self.end_factor = end_factor

    def __call__(self, where: float) -> float:
        """Return the factor at the fraction `where` in [0, 1] of the training."""
        iteration = where * self.max_iter
        warm = 1.0
        if iteration < self.warmup_iters:
            warm = self.warmup_factor + (1.0 - self.warmup_factor) * iteration / self.warmup_iters
        shapes = {
            "cosine": (1.0 + math.cos(math.pi * where)) / 2.0,
            "poly": max(0.0, 1.0 - where) ** self.power,
            "constant": 1.0,
        }
        return warm * (self.end_factor + (1.0 - self.end_factor) * shapes[self.decay])
