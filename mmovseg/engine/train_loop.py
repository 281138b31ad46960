"""The one training loop: detectron2's TrainerBase with mixed precision, clipping and a check of every loss."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from mmovseg.engine.sharding import whole
from mmovseg.errors import UserError
from mmovseg.layers.distributed import world_size


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss or the gradient became infinite or NaN."""


class Trainer(TrainerBase):
    """Run optimiser steps over an endless loader; everything else is a hook.

    Losses are the entries of the model's answer whose names start with ``loss``; they are summed. Other entries are
    only recorded. Values are averaged over processes.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        amp_dtype: torch.dtype | None = None,
        max_grad_norm: float | None = None,
    ) -> None:
        """Keep the parts and start the loader.

        Args:
            model: answers a batch with a dict of scalars while training; may be wrapped for DDP, or sharded.
            loader: yields batches without end.
            optimizer: over the trainable parameters of `model`.
            device: where the model is.
            amp_dtype: compute type of autocast; None = full precision. float16 scales the loss.
            max_grad_norm: L2 norm that the gradient is clipped to; None = no clipping.

        Raises:
            UserError: float16 was asked for without CUDA.
        """
        super().__init__()
        if amp_dtype is torch.float16 and device.type != "cuda":
            raise UserError(f"train.amp.dtype=float16 needs CUDA, but the device is {device.type}; use bfloat16")
        self.model = model
        self.optimizer = optimizer
        self.device = device
        self.amp_dtype = amp_dtype
        self.max_grad_norm = max_grad_norm
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._batches = iter(loader)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run iterations `start_iter` .. `max_iter` - 1. Hooks' `after_train` also runs when one of them fails."""
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        self.model.train()
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = max(start_iter, max_iter)  # tells after_train that nothing failed
            finally:
                self.after_train()

    def run_step(self) -> None:
        """Load a batch, compute the losses and their gradient, and let the optimiser step."""
        start = time.perf_counter()
        try:
            batch = next(self._batches)
        except StopIteration:
            raise RuntimeError(f"the train loader ended at iteration {self.iter}, but it must be endless") from None
        data_time = time.perf_counter() - start
        with self.autocast():
            answer = self.model(batch)
        losses = [value for name, value in answer.items() if name.startswith("loss")]
        if not losses:
            raise TypeError(f"the model answered with {sorted(answer)}, but a training step needs entries named loss*")
        total = torch.stack([loss.float() for loss in losses]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self._record(answer, data_time)
        if self.max_grad_norm is not None:
            self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the precision context of a forward pass."""
        if self.amp_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_dtype)

    def _clip(self) -> None:
        self.scaler.unscale_(self.optimizer)
        norm = float(whole(nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm or math.inf)))
        if math.isfinite(norm):
            self.storage.put_scalar("grad_norm", norm)
        elif not self.scaler.is_enabled():  # with loss scaling this is normal now and then, and the step is skipped
            raise NonFiniteLossError(
                f"the gradient became {norm} at iteration {self.iter} although the losses are finite"
            )

    def _record(self, answer: dict[str, Tensor], data_time: float) -> None:
        """Average over processes in one collective, check, and store. NaN on one process reaches all of them."""
        names = list(answer)
        values = torch.stack([value.detach().to(self.device, torch.float32).reshape(()) for value in answer.values()])
        values = torch.cat([values, values.new_tensor([data_time])])
        if world_size() > 1:
            dist.all_reduce(values)
            values /= world_size()
        *numbers, data_time = values.tolist()
        metrics = dict(zip(names, numbers, strict=True))
        losses = {name: value for name, value in metrics.items() if name.startswith("loss")}
        if not all(math.isfinite(value) for value in losses.values()):
            facts = ", ".join(f"{name} = {value:.4g}" for name, value in losses.items())
            raise NonFiniteLossError(f"a loss is not finite at iteration {self.iter}: {facts}")
        self.storage.put_scalar("total_loss", sum(losses.values()))
        self.storage.put_scalars(**metrics)
        self.storage.put_scalar("data_time", data_time)
