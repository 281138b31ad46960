"""Measure whether features on disk are worth it: the same training steps with the teacher running and without."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import nn

from mmovseg.config import instantiate
from mmovseg.data.build import Mapper
from mmovseg.data.features import FeatureMapper
from mmovseg.data.mapper import DRAW_KEY
from mmovseg.data.sample import ModelInput
from mmovseg.engine.features import fill_store, read_work
from mmovseg.engine.launch import choose_device, set_threads
from mmovseg.engine.provenance import device_name
from mmovseg.engine.run import amp_dtype
from mmovseg.engine.seeding import seed_everything
from mmovseg.engine.train_loop import Trainer
from mmovseg.errors import UserError

_WARMUP = 2


@dataclass
class Timing:
    """Seconds of each step: `data` to read and map the batch, `step` for the rest (forward, backward, update)."""

    data: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)

    @property
    def medians(self) -> tuple[float, float]:
        """Of data and step, without the first ones."""
        return median(self.data[_WARMUP:]), median(self.step[_WARMUP:])


class _TimedBatches:
    """Batches of successive draws over few images, mapped in this process; notes how long each took."""

    def __init__(
        self, mapper: Mapper, dicts: list[dict[str, Any]], batch_size: int, clock: Callable[[], float]
    ) -> None:
        self.mapper, self.dicts, self.batch_size, self.clock = mapper, dicts, batch_size, clock
        self.timing = Timing()

    def __iter__(self) -> Iterator[list[ModelInput]]:
        for first in itertools.count(0, self.batch_size):
            start = self.clock()
            draws = range(first, first + self.batch_size)
            batch = [self.mapper({**self.dicts[draw % len(self.dicts)], DRAW_KEY: draw}) for draw in draws]
            self.timing.data.append(self.clock() - start)
            yield batch


def measure_gain(config: DictConfig, *, steps: int) -> str:
    """Time training steps with the teacher running and with its features, in turn, in this process.

    The images of two batches are used over and over and were read before, so that both ways find them in the same
    caches. Their features lie in a temporary folder meanwhile; nothing is kept.

    Args:
        config: of an alignment, with or without a `FeatureMapper`. Device, precision, batch size and views hold.
        steps: timed steps each way, after two that are not.

    Returns:
        What was measured, in lines. On a CPU the seconds are those that this process was at work, so that other
        processes count little.

    Raises:
        UserError: no steps, no teacher, or what `fill_store` refuses.
    """
    if steps < 1:
        raise UserError(f"--measure needs at least 1 step, got {steps}")
    device = choose_device(config.train.device)
    set_threads(config.train.num_threads, device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    batch_size = int(config.dataloader.train.batch_size)
    seed_everything(config.train.seed)
    model = instantiate(config.model).to(device)
    work = read_work(config, built=model)
    few = replace(work, dicts=work.dicts[: 2 * batch_size])
    for entry in few.dicts:
        work.source({**entry, DRAW_KEY: 0})
    with TemporaryDirectory() as folder:
        start = clock()
        fill_store(few, folder, tell=lambda _: None, show_progress=False)
        each = (clock() - start) / (len(few.dicts) * work.views)
        ways = {
            "teacher running": _TimedBatches(work.source, few.dicts, batch_size, clock),
            "features from disk": _TimedBatches(
                FeatureMapper(work.source, features=folder), few.dicts, batch_size, clock
            ),
        }
        _take_steps(config, model, device, ways, steps)
    timings = {name: batches.timing.medians for name, batches in ways.items()}
    return _report(timings, each * len(work.dicts) * work.views, config.train.max_iter, device)


def _take_steps(
    config: DictConfig, model: nn.Module, device: torch.device, ways: Mapping[str, _TimedBatches], steps: int
) -> None:
    """Train, one step each way in turn, as `Trainer` does."""
    optimizer = instantiate({**{key: config.optimizer[key] for key in config.optimizer}, "model": model})
    model.train()
    clip = config.train.clip_grad
    trainers = [
        (
            batches,
            Trainer(
                model=model,
                loader=batches,
                optimizer=optimizer,
                device=device,
                amp_dtype=amp_dtype(config),
                max_grad_norm=clip.max_norm if clip.enabled else None,
            ),
        )
        for batches in ways.values()
    ]
    with EventStorage(0) as storage:
        for _ in range(_WARMUP + steps):
            for batches, trainer in trainers:
                trainer.storage = storage
                start = batches.clock()
                trainer.run_step()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                batches.timing.step.append(batches.clock() - start - batches.timing.data[-1])


def _report(timings: Mapping[str, tuple[float, float]], all_views: float, max_iter: int, device: torch.device) -> str:
    kind = "seconds" if device.type == "cuda" else "CPU seconds"
    lines = [f"{kind} a training step, medians, on {device_name(device)} with {torch.get_num_threads()} threads:"]
    for name, (data, step) in timings.items():
        lines.append(f"  {name:18}  data {data:.4f}  step {step:.4f}  together {data + step:.4f}")
    (data, step), (fast_data, fast_step) = timings.values()
    gain = data + step - fast_data - fast_step
    lines.append(
        f"  ratio               step {step / fast_step:.2f}  together {(data + step) / (fast_data + fast_step):.2f}"
    )
    saved = f"{gain * max_iter:.0f} of {(data + step) * max_iter:.0f} s"
    lines.append(f"all views once: {all_views:.0f} s; a run of {max_iter} iterations then saves {saved}")
    return "\n".join(lines)
