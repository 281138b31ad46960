"""What a model costs: seconds a training step and an image, where they go, memory, parameters, energy.

Each measurement runs in a process of its own (`measure`), so that the memory of one does not show in the next; within
it `measure_here` does the work. The training step is that of `Trainer`, with the config's optimiser, precision,
clipping and averaging. Its batch is read before the clock starts and used again in every step, so reading data is left
out. The model starts from random numbers, which cost the same as trained ones, so no weights are needed.

The CUDA path (events, the allocator's peak) is written but has not been run on a GPU.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import Tensor, nn

from mmovseg.config import apply_overrides, config_hash, instantiate, load_config
from mmovseg.data.sample import ModelInput
from mmovseg.engine.cost_inputs import (
    PartAlone,
    describe_batch,
    endless,
    find_part,
    first_test_loader,
    inference_inputs,
    noise_batch,
    record_calls,
    test_batch,
    train_batch,
    use_noise,
)
from mmovseg.engine.ema import EmaWeights
from mmovseg.engine.energy import EnergyMeter
from mmovseg.engine.hooks import EmaHook
from mmovseg.engine.log import memory_status_mb, peak_memory_mb
from mmovseg.engine.own_process import answer_of
from mmovseg.engine.parameters import count_parameters
from mmovseg.engine.run import Context, amp_dtype, autocast_for, build_model, prepare
from mmovseg.engine.stopwatch import (
    Clock,
    Mark,
    OtherLoad,
    PartTimer,
    is_frozen,
    machine_name,
    matmul_gflops,
    parts_of,
    reset_peak_memory,
)
from mmovseg.engine.train_loop import Trainer
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.evaluation.provenance import installed_versions, source_commit

Phase = Literal["train", "infer"]
PHASES: tuple[Phase, ...] = ("train", "infer")
LEAST_ENERGY_SECONDS = 10.0
"""Power is sampled once a second, so energy is counted over at least so long."""
LEAST_STEPS = 3
"""How many steps are measured at least when a time is given; their spread is stated."""
LONG_STEP_SECONDS = 15.0
"""A step that takes longer is measured once when a time is given: what varies from step to step is small beside it."""


@dataclass(frozen=True)
class Job:
    """One measurement.

    phase: ``train`` = optimiser steps, ``infer`` = answers without a gradient.
    part: dotted name of a part to be measured alone, given what the model gives it; None = the whole model.
    steps, warmup: how many are measured, and how many run before (the first ones allocate).
    batch: samples a step, or images a call; None = the config's training batch, and 1 image.
    pixels: read made-up rasters of this side instead of the config's data.
    classes: with `pixels`, ask for so many made-up classes and leave out the config's data altogether, its geometry and
        its clouds too.
    seconds: take only as many steps as fit, at least `LEAST_STEPS`, or one where a step takes longer than
        `LONG_STEP_SECONDS`; None = always `steps`.
    """

    config_file: str
    phase: Phase
    overrides: tuple[str, ...] = ()
    part: str | None = None
    steps: int = 20
    warmup: int = 3
    batch: int | None = None
    pixels: int | None = None
    classes: int | None = None
    seconds: float | None = None
    energy: bool = False
    country: str | None = None

    def check(self) -> None:
        """Raise `UserError` for numbers that measure nothing."""
        for name in ("steps", "warmup", "batch", "classes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value} but must be at least 1")
        if self.classes is not None and self.pixels is None:
            raise UserError(f"{self.classes} made-up classes need --pixels, since labels of real data have their own")


def measure(job: Job) -> dict[str, Any]:
    """Measure in a new process and return what `measure_here` returns there.

    Raises:
        UserError: the job or its config is wrong, or the process was killed, for example for want of memory.
    """
    job.check()
    try:
        content: dict[str, Any] = answer_of("mmovseg.engine.cost", asdict(job), what=f"'{job.config_file}'")
    except UserError as error:
        if not str(error).startswith("the process that measured"):
            raise
        raise UserError(f"{error}; a smaller --batch needs less memory") from error
    return content


def measure_here(job: Job) -> dict[str, Any]:
    """Measure in this process.

    Returns:
        ``seconds`` and ``cpu_seconds`` of every step, ``shares`` of the step's time by stage (0..1, training only),
        ``parts`` by part of the model (forward only), ``frozen`` the names of parts that do not train, ``parameters``
        by part as (all, trainable), ``peak_mb`` while stepping (CPU: resident, CUDA: allocated), ``start_mb`` and
        ``resident_mb`` of the process before there was a model and before the measured steps, ``first_seconds`` and
        ``first_peak_mb`` of the warm-up, which allocates, compiles and encodes the class names, ``other_cores`` kept
        busy by others, ``energy`` or None, and facts.

    Raises:
        UserError: the config lacks a section, its data is not there, or the part is not.
    """
    job.check()
    start_mb = memory_status_mb("VmRSS")
    config = apply_overrides(load_config(job.config_file), job.overrides)
    for section in ("model", "dataloader", "train", *(("optimizer",) if job.phase == "train" else ())):
        if section not in config:
            raise UserError(f"config '{job.config_file}' defines no '{section}', which a measurement needs")
    sha256 = config_hash(config)
    context = prepare(config, job.config_file)
    clock = Clock(context.device)
    dtype = amp_dtype(config) or torch.float32
    rate = matmul_gflops(clock)
    own_rate = matmul_gflops(clock, dtype=dtype, large=True) if job.seconds is not None else None
    model = build_model(context, checkpoint=None, resumed=True)
    batch = _inputs(job, config, model)
    meter = EnergyMeter(job.country) if job.energy else None
    subject = model if job.part is None else _alone(job, context, model, batch)
    del model
    gc.collect()
    counted = subject.part if isinstance(subject, PartAlone) else subject
    runner = _Training if job.phase == "train" else _Inference
    facts = runner(context, subject, batch, clock).measure(job, meter)
    return facts | {
        "parameters": count_parameters(counted),
        "frozen": [name for name, part in parts_of(counted).items() if is_frozen(part)],
        "start_mb": start_mb,
        "peak_mb": peak_memory_mb(context.device),
        "energy": meter.report if meter is not None else None,
        "batch": len(batch),
        "input": describe_batch(batch),
        "precision": str(dtype).removeprefix("torch."),
        "compiled": bool(config.train.compile),
        "device": context.device.type,
        "machine": machine_name(context.device),
        "threads": torch.get_num_threads(),
        "matmul_gflops": rate,
        "matmul_gflops_precision": own_rate,
        "max_iter": int(config.train.max_iter),
        "config_sha256": sha256,
        "commit": source_commit(),
        "versions": installed_versions(),
        "job": asdict(job),
    }


def _inputs(job: Job, config: DictConfig, model: nn.Module) -> list[ModelInput]:
    """Return the batch of the job's phase, from the config's data or from noise."""
    training = job.phase == "train"
    loader = config.dataloader.get("train") if training else first_test_loader(config) or config.dataloader.get("train")
    if loader is None:
        raise UserError(f"config '{job.config_file}' has no data loader for --phase {job.phase}")
    count = job.batch or (loader.get("batch_size", 1) if training else 1)
    if job.pixels is not None:
        contract = getattr(model, "input_contract", None)
        if not contract:
            raise UserError(f"--pixels needs a model with an input contract, '{job.config_file}' has none")
        if job.classes is not None:
            return noise_batch(
                contract, pixels=job.pixels, count=job.batch or 1, classes=job.classes, is_train=training
            )
        use_noise(loader, contract, pixels=job.pixels, count=count)
    try:
        if not training:
            return inference_inputs(model, test_batch(config, count))
        loader.batch_size = count
        return train_batch(config)
    except UserError as error:
        if job.pixels is not None:
            raise
        raise UserError(f"{error} (--pixels N measures with random rasters instead)") from error


def _alone(job: Job, context: Context, model: nn.Module, batch: list[ModelInput]) -> PartAlone:
    """Run the whole model once and keep one part with the calls to it."""
    assert job.part is not None
    part = find_part(model, job.part)
    model.train(job.phase == "train")
    with EventStorage(0), autocast_for(context)(), nullcontext() if model.training else torch.no_grad():
        calls = record_calls(part, lambda: model(batch))
    if context.config.get("optimizer") is not None and "lr_multipliers" in context.config.optimizer:
        context.config.optimizer.lr_multipliers = {}  # they name parts of the whole model; rates cost nothing
    return PartAlone(part, calls)


# ---------------------------------------------------------------- stepping


class _Runner(ABC):
    """Warm up, then step under the clock."""

    def __init__(self, context: Context, model: nn.Module, batch: list[ModelInput], clock: Clock) -> None:
        self.context, self.model, self.batch, self.clock = context, model, batch, clock
        self.steps: list[dict[str, Mark]] = []
        # A compiled model has no parts that could be watched from outside.
        watch = not isinstance(model, PartAlone) and not context.config.train.compile
        self.timers = {name: PartTimer(clock) for name in parts_of(model)} if watch else {}

    def measure(self, job: Job, meter: EnergyMeter | None) -> dict[str, Any]:
        """Return times and shares of the measured steps."""
        with ExitStack() as stack:
            for name, timer in self.timers.items():
                stack.enter_context(timer.watching(self.model.get_submodule(name)))
            self.run(job.warmup)
            self.clock.wait()
            warm = self._seconds("start", "end")
            first_peak_mb = peak_memory_mb(self.context.device)
            count = _steps_that_fit(job, warm[-1])
            if meter is not None:
                count = max(count, math.ceil(LEAST_ENERGY_SECONDS / median(self._seconds("start", "end"))))
            self.steps.clear()
            for timer in self.timers.values():
                timer.spans.clear()
            reset_peak_memory(self.context.device)
            resident_mb = memory_status_mb("VmRSS")
            others = OtherLoad()
            with meter or nullcontext():
                self.run(count)
                self.clock.wait()
            other_cores = others.cores()
        seconds = self._seconds("start", "end")
        total = sum(seconds)
        return {
            "phase": job.phase,
            "seconds": seconds,
            "cpu_seconds": [step["end_cpu"] - step["start_cpu"] for step in self.steps],
            "other_cores": other_cores,
            "resident_mb": resident_mb,
            "first_seconds": warm[0],
            "first_peak_mb": first_peak_mb,
            "shares": {name: sum(self._seconds(*pair)) / total for name, pair in self.stages().items()},
            "parts": {name: timer.seconds() / total for name, timer in self.timers.items()},
        }

    @abstractmethod
    def run(self, count: int) -> None:
        """Take `count` steps and append the marks of each to `steps`."""

    def stages(self) -> dict[str, tuple[str, str]]:
        """Return name -> (first mark, last mark) of the stages of a step."""
        return {}

    def stamp(self, name: str) -> None:
        """Remember this moment of the step."""
        if name == "start":
            self.steps.append({})
        self.steps[-1][name] = self.clock.mark()
        self.steps[-1][f"{name}_cpu"] = time.process_time()

    def _seconds(self, start: str, end: str) -> list[float]:
        return [self.clock.seconds(step[start], step[end]) for step in self.steps]


def _steps_that_fit(job: Job, step_seconds: float) -> int:
    """Return how many steps are measured when one takes so long."""
    if job.seconds is None:
        return job.steps
    least = 1 if step_seconds > LONG_STEP_SECONDS else min(LEAST_STEPS, job.steps)
    return max(least, min(job.steps, int(job.seconds / max(step_seconds, 1e-9))))


class _Inference(_Runner):
    """Answers to the batch, as an evaluation asks for them."""

    def __init__(self, context: Context, model: nn.Module, batch: list[ModelInput], clock: Clock) -> None:
        super().__init__(context, model, batch, clock)
        if context.config.train.compile:
            model.compile()

    def run(self, count: int) -> None:
        self.model.eval()
        autocast = autocast_for(self.context)
        for _ in range(count):
            self.stamp("start")
            with torch.no_grad(), autocast():
                self.model(self.batch)
            self.stamp("end")


class _Training(_Runner):
    """Steps of the training loop on the same batch."""

    def __init__(self, context: Context, model: nn.Module, batch: list[ModelInput], clock: Clock) -> None:
        super().__init__(context, model, batch, clock)
        config, train = context.config, context.config.train
        optimizer = instantiate({**{key: config.optimizer[key] for key in config.optimizer}, "model": model})
        if train.compile:
            model.compile()
        self.trainer = _StampedTrainer(
            self,
            model=_Stamped(self, model),
            loader=endless(batch),
            optimizer=optimizer,
            device=context.device,
            amp_dtype=amp_dtype(config),
            max_grad_norm=train.clip_grad.max_norm if train.clip_grad.enabled else None,
        )
        ema = EmaWeights(model, train.ema.decay) if train.ema.enabled else None
        self.trainer.register_hooks([_Start(self), EmaHook(ema) if ema is not None else None, _End(self)])
        self.done = 0

    def run(self, count: int) -> None:
        self.trainer.train(self.done, self.done + count)
        self.done += count

    def stages(self) -> dict[str, tuple[str, str]]:
        return {
            "forward": ("forward", "forward_end"),
            "backward": ("forward_end", "backward_end"),
            "optimizer": ("recorded", "end"),
        }


class _Stamped(nn.Module):
    """Stamps around the forward pass of a model, also of a compiled one."""

    def __init__(self, runner: _Runner, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._stamp = runner.stamp

    def forward(self, batch: list[ModelInput]) -> Any:
        """Answer the batch."""
        self._stamp("forward")
        answer = self.model(batch)
        self._stamp("forward_end")
        return answer


class _StampedTrainer(Trainer):
    """The trainer, with a stamp where the gradient is there and where its values are recorded."""

    def __init__(self, runner: _Runner, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._stamp = runner.stamp

    def _record(self, answer: dict[str, Tensor], data_time: float) -> None:
        self._stamp("backward_end")
        super()._record(answer, data_time)
        self._stamp("recorded")


class _Start(HookBase):
    """First of the hooks."""

    def __init__(self, runner: _Runner) -> None:
        self.runner = runner

    def before_step(self) -> None:
        """Start the step's clock."""
        self.runner.stamp("start")


class _End(_Start):
    """Last of the hooks."""

    def before_step(self) -> None:
        """Nothing begins here."""

    def after_step(self) -> None:
        """Stop the step's clock."""
        self.runner.stamp("end")


@exit_on_user_error
def main(arguments: list[str]) -> None:
    """Do the job given as JSON and write the answer to the file given: the process that `measure` starts."""
    content = json.loads(arguments[0])
    job = Job(**{**content, "overrides": tuple(content["overrides"])})
    Path(arguments[1]).write_text(json.dumps(measure_here(job)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
