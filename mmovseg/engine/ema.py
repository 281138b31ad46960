"""Exponential moving average of the trainable weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmovseg.engine.sharding import like
from mmovseg.errors import UserError


class EmaWeights:
    """Averages of a model's trainable parameters; frozen parameters and buffers stay the model's own.

    After step n (from 0): average <- d * average + (1 - d) * parameter, with d = min(decay, (1 + n) / (10 + n)), so
    that a short run does not carry its initial values along.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start the averages at the current values."""
        self.decay = decay
        self._parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.restart()

    def restart(self) -> None:
        """Forget the past: the averages are the current values."""
        self.num_updates = 0
        self.averages = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the current parameters in; call it after each optimiser step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, parameter in self._parameters.items():
            self.averages[name].lerp_(parameter, 1.0 - decay)
        self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model for the length of the block."""
        with torch.no_grad():
            own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
            for name, parameter in self._parameters.items():
                parameter.copy_(self.averages[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(own[name])

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """Return the averages and the number of updates."""
        return {"num_updates": self.num_updates, "averages": dict(self.averages)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            UserError: the averages are of other parameters.
        """
        averages = state["averages"]
        assert isinstance(averages, Mapping) and isinstance(state["num_updates"], int)
        if set(averages) != set(self.averages):
            odd = sorted(set(averages) ^ set(self.averages))[0]
            raise UserError(f"the saved EMA weights are of other parameters than the model trains, for example '{odd}'")
        for name, value in averages.items():
            self.averages[name].copy_(like(value, self.averages[name]))
        self.num_updates = state["num_updates"]
