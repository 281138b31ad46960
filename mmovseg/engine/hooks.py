"""What happens around a step: schedule, averaging, checkpoints, evaluation."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from mmovseg.checkpoint.load import read_metadata
from mmovseg.checkpoint.save import atomic_write, save_weights
from mmovseg.engine.ema import EmaWeights
from mmovseg.engine.seeding import preserved_rng
from mmovseg.engine.sharding import gather_on_main
from mmovseg.engine.state import STATE_FILE, save_training_state
from mmovseg.errors import UserError

logger = logging.getLogger(__name__)

POINTER_FILE = "last_checkpoint"
FINAL_FILE = "model_final.safetensors"
BEST_FILE = "model_best.safetensors"


class LearningRateHook(HookBase):
    """Set every group's rate to its own base times ``schedule(iteration / max_iter)`` before the step.

    It keeps no state: the rate follows from the iteration alone, so a resumed run needs nothing restored.
    """

    def __init__(self, optimizer: Any, schedule: ParamScheduler) -> None:
        """Remember the base rates, which are the groups' current ones."""
        self.optimizer = optimizer
        self.schedule = schedule
        self._base = [group["lr"] for group in optimizer.param_groups]
        # The rate that is reported: of the group with most numbers.
        sizes = [sum(parameter.numel() for parameter in group["params"]) for group in optimizer.param_groups]
        self._largest = sizes.index(max(sizes))

    def before_step(self) -> None:
        """Set and record the rates."""
        factor = float(self.schedule(self.trainer.iter / self.trainer.max_iter))
        for group, base in zip(self.optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * factor
        self.trainer.storage.put_scalar("lr", self._base[self._largest] * factor, smoothing_hint=False)


class EmaHook(HookBase):
    """Update the averaged weights after each step."""

    def __init__(self, ema: EmaWeights) -> None:
        """Keep the averages."""
        self.ema = ema

    def after_step(self) -> None:
        """Take the new weights in."""
        self.ema.update()


class CheckpointHook(HookBase):
    """Write weights and the training state periodically and at the end.

    ``model_<steps done>.safetensors`` and ``model_final.safetensors`` hold what is to be used (the averaged weights if
    there are any), complete with frozen parameters; ``training_state.pth`` holds what ``--resume`` needs;
    ``last_checkpoint`` names the newest weights file.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        model: nn.Module,
        ema: EmaWeights | None,
        period: int,
        max_to_keep: int,
        metadata: Mapping[str, str],
        config: Mapping[str, Any],
    ) -> None:
        """Keep the settings; see `CheckpointCfg`. `model` is the unwrapped one."""
        self.output_dir = Path(output_dir)
        self.model = model
        self.ema = ema
        self.period = period
        self.max_to_keep = max_to_keep
        self.metadata = dict(metadata)
        self.config = config
        self._last: tuple[int, Path] | None = None
        self._periodic: list[Path] = []  # of this run, oldest first: a folder may hold those of a former one

    def before_train(self) -> None:
        """Take up the periodic files that a resumed run wrote before."""
        if self.trainer.start_iter > 0:
            files = sorted(self.output_dir.glob("model_" + "[0-9]" * 7 + ".safetensors"))
            start = self.trainer.start_iter
            self._periodic = [file for file in files if int(file.stem.removeprefix("model_")) <= start]

    def after_step(self) -> None:
        """Write the periodic checkpoint."""
        done = self.trainer.iter + 1
        if self.period > 0 and done % self.period == 0 and done < self.trainer.max_iter:
            name = f"model_{done:07d}.safetensors"
            self._save(name, done)
            self._periodic = [file for file in self._periodic if file.name != name] + [self.output_dir / name]
            self._remove_old()

    def after_train(self) -> None:
        """Write the final one, if the training came to its end."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._save(FINAL_FILE, self.trainer.iter)

    def file_of(self, done: int) -> str | None:
        """Return the weights file written after `done` steps, None if there was none."""
        return str(self._last[1]) if self._last is not None and self._last[0] == done else None

    def write_weights(self, name: str, done: int, **facts: str) -> None:
        """Write one weights file with its facts. All processes must call it; the first one writes."""
        with self.ema.applied() if self.ema is not None else nullcontext():
            state = gather_on_main(self.model.state_dict())
            if comm.is_main_process():
                facts = {**self.metadata, "iteration": str(done), **facts}
                save_weights(state, self.output_dir / name, metadata=facts)

    def _save(self, name: str, done: int) -> None:
        self.write_weights(name, done)
        self._last = (done, self.output_dir / name)
        save_training_state(
            self.output_dir / STATE_FILE,
            iteration=done,
            model=self.model,
            optimizer=self.trainer.optimizer,
            scaler=self.trainer.scaler,
            ema=self.ema,
            config=self.config,
        )
        if comm.is_main_process():
            with atomic_write(self.output_dir / POINTER_FILE) as temporary:
                temporary.write_text(name + "\n", encoding="utf-8")
            logger.info("saved %s", self.output_dir / name)
        comm.synchronize()

    def _remove_old(self) -> None:
        if self.max_to_keep > 0:
            old, self._periodic = self._periodic[: -self.max_to_keep], self._periodic[-self.max_to_keep :]
            for file in old if comm.is_main_process() else ():
                file.unlink(missing_ok=True)


class EvaluationHook(HookBase):
    """Evaluate periodically and at the end; keep the best weights apart from the last ones."""

    def __init__(
        self,
        *,
        evaluate: Callable[[str | None, int], Mapping[str, Any]],
        period: int,
        ema: EmaWeights | None,
        checkpoints: CheckpointHook,
        best_metric: str = "",
        best_mode: str = "max",
    ) -> None:
        """Keep the settings.

        `evaluate` is called with the file that holds the weights under evaluation (None when they are in no file) and
        the number of steps done, and returns results that `flat_scalars` understands. Register this hook after
        `checkpoints`.
        """
        self.evaluate = evaluate
        self.period = period
        self.ema = ema
        self.checkpoints = checkpoints
        self.best_metric = best_metric
        self.best_mode = best_mode
        self.results: Mapping[str, Any] = {}
        self._best: float | None = None
        self._told = False

    def before_train(self) -> None:
        """Take up the best value so far when a run is resumed: it is written in the best file itself."""
        file = self.checkpoints.output_dir / BEST_FILE
        if self.best_metric and self.trainer.start_iter > 0 and file.is_file():
            facts = read_metadata(file)
            if facts.get("best_metric") == self.best_metric:
                self._best = json.loads(facts["best_value"])

    def after_step(self) -> None:
        """Evaluate in between."""
        done = self.trainer.iter + 1
        if self.period > 0 and done % self.period == 0 and done < self.trainer.max_iter:
            self._run(done)

    def after_train(self) -> None:
        """Evaluate at the end, if the training came to it."""
        if self.period >= 0 and self.trainer.iter >= self.trainer.max_iter:
            self._run(self.trainer.iter)
            if self.best_metric and self._best is None:
                file = self.checkpoints.output_dir / BEST_FILE
                former = f"; '{file}' is of a former run" if file.is_file() else ""
                logger.warning("no %s was kept: %s never was a finite number%s", BEST_FILE, self.best_metric, former)

    def _run(self, done: int) -> None:
        weights: AbstractContextManager[None] = self.ema.applied() if self.ema is not None else nullcontext()
        with preserved_rng(), weights:
            self.results = self.evaluate(self.checkpoints.file_of(done), done)
        comm.synchronize()
        scalars = flat_scalars(self.results)
        if comm.is_main_process():
            self.trainer.storage.put_scalars(**scalars, smoothing_hint=False)
        if self.best_metric:
            self._keep_best(scalars, done)

    def _keep_best(self, scalars: Mapping[str, float], done: int) -> None:
        """Write the weights when they are the best so far, as the first process finds, which alone has results."""
        value = self._new_best(scalars) if comm.is_main_process() else None
        value = comm.all_gather(value)[0]
        if value is not None:
            self._best = value
            self.checkpoints.write_weights(BEST_FILE, done, best_metric=self.best_metric, best_value=json.dumps(value))
            logger.info("best %s so far: %.4f at iteration %d", self.best_metric, value, done)

    def _new_best(self, scalars: Mapping[str, float]) -> float | None:
        """Return the value under test if it is better than all before, else None."""
        if self.best_metric not in scalars:
            known = ", ".join(scalars) or "no numbers"
            raise UserError(f"train.select_best.metric is '{self.best_metric}' but the evaluation gives {known}")
        value = scalars[self.best_metric]
        if not math.isfinite(value) and not self._told:
            self._told = True
            logger.warning(
                "train.select_best.metric: %s is %s, which is never the best; it may need classes that this vocabulary "
                "or data lacks",
                self.best_metric,
                value,
            )
        sign = 1.0 if self.best_mode == "max" else -1.0
        better = math.isfinite(value) and (self._best is None or sign * value > sign * self._best)
        return value if better else None


def flat_scalars(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of ``{loader: {task: {metric: number}}}`` by path; a single loader's name is left out."""
    flat = {}
    for loader, tasks in results.items():
        for task, metrics in tasks.items():
            for metric, value in metrics.items() if isinstance(metrics, Mapping) else ():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    flat[f"{task}/{metric}" if len(results) == 1 else f"{loader}/{task}/{metric}"] = float(value)
    return flat
