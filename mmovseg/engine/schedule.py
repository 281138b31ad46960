"""Learning-rate schedules with their arithmetic in sight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from fvcore.common.param_scheduler import ParamScheduler

from mmovseg.errors import UserError

Decay = Literal["cosine", "poly", "constant", "multistep"]
_DECAYS = ("cosine", "poly", "constant", "multistep")


class WarmupSchedule(ParamScheduler):
    """Factor on every learning rate: linear warm-up times a decay over the whole training.

    At iteration i of `max_iter`, with t = i / max_iter, or with `decay_after_warmup`
    t = max(0, i - warmup_iters) / (max_iter - warmup_iters):
        warm(i)   = warmup_factor + (1 - warmup_factor) * i / warmup_iters  for i < warmup_iters, else 1
        cosine    = (1 + cos(pi * t)) / 2,   poly = (1 - t) ** power,   constant = 1
        multistep = gamma ** (number of milestones <= i)
        factor    = warm(i) * (end_factor + (1 - end_factor) * decay(t))
    """

    def __init__(
        self,
        *,
        max_iter: int,
        decay: Decay = "cosine",
        warmup_iters: int = 0,
        warmup_factor: float = 0.001,
        power: float = 0.9,
        end_factor: float = 0.0,
        milestones: Sequence[int] = (),
        gamma: float = 0.1,
        decay_after_warmup: bool = False,
    ) -> None:
        """Check and keep the settings.

        Args:
            max_iter: iterations of the whole training.
            decay: shape after (and during) the warm-up.
            warmup_iters: length of the warm-up; 0 = none. A training shorter than this never leaves it.
            warmup_factor: factor at iteration 0.
            power: of ``poly``.
            end_factor: what the decay ends at, as a part of the initial rate; for ``multistep``, what it never falls
                below however many steps there are.
            milestones: iterations of ``multistep`` from which the rate is `gamma` times what it was, rising. Those
                beyond `max_iter` are never reached, so that a run can be cut short.
            gamma: of ``multistep``.
            decay_after_warmup: let the decay begin where the warm-up ends, as MAE does, instead of at iteration 0.

        Raises:
            UserError: unknown `decay`, a negative warm-up, milestones that do not rise, or milestones where there is no
                ``multistep`` or the other way round.
        """
        if decay not in _DECAYS:
            raise UserError(f"lr_multiplier.decay is '{decay}' but must be one of {', '.join(_DECAYS)}")
        if warmup_iters < 0:
            raise UserError(f"lr_multiplier.warmup_iters is {warmup_iters} but must not be negative")
        steps = tuple(int(step) for step in milestones)
        if bool(steps) != (decay == "multistep"):
            raise UserError(
                f"lr_multiplier.milestones is {list(steps)} with decay '{decay}'; multistep alone needs them"
            )
        if any(late <= early for early, late in zip((0, *steps), steps, strict=False)):
            raise UserError(f"lr_multiplier.milestones must rise from above 0, got {list(steps)}")
        self.max_iter = max_iter
        self.decay = decay
        self.warmup_iters = warmup_iters
        self.warmup_factor = warmup_factor
        self.power = power
        self.end_factor = end_factor
        self.milestones = steps
        self.gamma = gamma
        self.decay_after_warmup = decay_after_warmup

    def __call__(self, where: float) -> float:
        """Return the factor at the fraction `where` in [0, 1] of the training."""
        iteration = where * self.max_iter
        warm = 1.0
        if iteration < self.warmup_iters:
            warm = self.warmup_factor + (1.0 - self.warmup_factor) * iteration / self.warmup_iters
        if self.decay_after_warmup:
            where = max(0.0, iteration - self.warmup_iters) / max(1, self.max_iter - self.warmup_iters)
        # where * max_iter can fall short of a whole number by rounding
        reached = sum(iteration + 1e-6 >= step for step in self.milestones)
        shapes = {
            "cosine": (1.0 + math.cos(math.pi * where)) / 2.0,
            "poly": max(0.0, 1.0 - where) ** self.power,
            "constant": 1.0,
            "multistep": self.gamma**reached,
        }
        return warm * (self.end_factor + (1.0 - self.end_factor) * shapes[self.decay])
