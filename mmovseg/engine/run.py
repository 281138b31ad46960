"""One run, from a checked config to weights and results, in this process (one of several, maybe)."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import hooks as detectron2_hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmovseg.checkpoint.load import load_weights
from mmovseg.config import config_hash, config_to_dict, instantiate, save_config
from mmovseg.config.instantiate import TARGET, target_arguments
from mmovseg.config.loading import walk_calls
from mmovseg.engine.ema import EmaWeights
from mmovseg.engine.evaluation import Results, build_evaluators, evaluate, test_nodes
from mmovseg.engine.hooks import (
    FINAL_FILE,
    POINTER_FILE,
    CheckpointHook,
    EmaHook,
    EvaluationHook,
    LearningRateHook,
)
from mmovseg.engine.launch import choose_device, prepare_for_processes, set_threads
from mmovseg.engine.log import ProgressPrinter
from mmovseg.engine.parameters import count_parameters, format_parameters
from mmovseg.engine.provenance import result_facts, weights_metadata
from mmovseg.engine.seeding import seed_everything
from mmovseg.engine.sharding import class_name, gathered_weights
from mmovseg.engine.state import (
    STATE_FILE,
    changed_keys,
    read_training_state,
    restore_generators,
    restore_training_state,
)
from mmovseg.engine.train_loop import Trainer
from mmovseg.errors import UserError
from mmovseg.weights import resolve

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What a run knows beside its config."""

    config: DictConfig
    config_file: str
    device: torch.device

    @property
    def output_dir(self) -> Path:
        """Folder of this run."""
        return Path(self.config.train.output_dir)


def prepare(config: DictConfig, config_file: str) -> Context:
    """Check what the run needs, choose the device, set torch's switches and seed everything.

    Raises:
        UserError: the device is not there, or statistics of the data are missing.
    """
    require_statistics(statistics_files(config.get("model")), config_file)
    train = config.train
    device = choose_device(train.device)
    set_threads(train.num_threads, device)
    torch.backends.cudnn.benchmark = train.cudnn_benchmark
    torch.use_deterministic_algorithms(train.deterministic, warn_only=True)
    seed_everything(train.seed)
    return Context(config, config_file, device)


def statistics_files(model: DictConfig | None) -> list[str]:
    """Return the files of statistics that calls in the model name under ``statistics``; other names are shipped."""
    named = [
        None if OmegaConf.is_interpolation(node, "statistics") else node.get("statistics")
        for _, node in walk_calls(model)
    ]
    return [name for name in named if isinstance(name, str) and name.endswith(".json")]


def require_statistics(files: Sequence[str], config_file: str) -> None:
    """Check that these files are there.

    Raises:
        UserError: one is not; the sentence says how to measure it.
    """
    for file in files:
        if not Path(file).is_file():
            raise UserError(
                f"config '{config_file}' reads the statistics of its data from '{file}', which does not exist; measure "
                f"them first: python tools/compute_statistics.py --config-file {config_file} --output {file}"
            )


def forget_foundation_weights(model: DictConfig) -> None:
    """Set every ``weights`` argument inside the model that names a file to None: a checkpoint follows that holds all.

    Others by that name, such as the four factors of detectron2's `Box2BoxTransform`, stay.
    """
    for _, node in walk_calls(model):
        named, _ = target_arguments(node[TARGET])
        default = named["weights"].default if "weights" in named else None
        if isinstance(node.get("weights", default), str):
            node["weights"] = None


def build_model(context: Context, *, checkpoint: str | None, resumed: bool = False) -> nn.Module:
    """Build the model under the seed and load `checkpoint` into it.

    Foundation weights that the checkpoint holds anyway are not read, unless `train.init_allow_missing` says that it may
    lack some.

    Args:
        context: of the run.
        checkpoint: weights file, or None for the model as built.
        resumed: a training state follows, so no other weights need to be read.

    Raises:
        UserError: the checkpoint does not fit.
    """
    train = context.config.train
    if checkpoint is not None and not resolve(checkpoint).is_file():
        raise UserError(f"checkpoint '{checkpoint}' does not exist")
    node = context.config.model
    if resumed or (checkpoint is not None and not train.init_allow_missing):
        node = context.config.copy().model  # the saved config keeps saying what the model was made of
        forget_foundation_weights(node)
    seed_everything(train.seed)
    model: nn.Module = instantiate(node)
    if checkpoint is not None:
        load_weights(
            model,
            checkpoint,
            key=train.init_key,
            allow_missing=list(train.init_allow_missing),
            allow_unexpected=list(train.init_allow_unexpected),
        )
    return model.to(context.device)


def amp_dtype(config: DictConfig) -> torch.dtype | None:
    """Return the autocast type of `train.amp`, None when it is off."""
    if not config.train.amp.enabled:
        return None
    return {"float16": torch.float16, "bfloat16": torch.bfloat16}[config.train.amp.dtype]


def autocast_for(context: Context) -> partial[torch.autocast] | type[contextlib.nullcontext]:
    """Return a maker of the precision context of a forward pass."""
    dtype = amp_dtype(context.config)
    return contextlib.nullcontext if dtype is None else partial(torch.autocast, context.device.type, dtype=dtype)


def run_evaluation(context: Context, *, resume: bool = False) -> Results:
    """Evaluate `train.init_checkpoint`, or with `resume` the newest weights in the output folder.

    Raises:
        UserError: the config evaluates nothing, or the checkpoint is missing or does not fit.
    """
    config = context.config
    if not test_nodes(config):
        raise UserError(
            f"config '{context.config_file}' has no dataloader.test and dataloader.evaluator: nothing can be evaluated"
        )
    checkpoint = str(newest_weights(context.output_dir)) if resume else config.train.init_checkpoint
    if checkpoint is None:
        logger.warning("train.init_checkpoint is not set: the model is evaluated as built, without trained weights")
    model = build_model(context, checkpoint=checkpoint)
    facts = result_facts(
        config_file=context.config_file,
        config_sha256=config_hash(config),
        seed=config.train.seed,
        device=context.device,
        checkpoint=checkpoint,
    )
    return evaluate(model, build_evaluators(config, facts), autocast_for(context))


def newest_weights(output_dir: Path) -> Path:
    """Return the weights file that ``last_checkpoint`` names.

    Raises:
        UserError: there is none.
    """
    pointer = output_dir / POINTER_FILE
    if not pointer.is_file():
        raise UserError(f"--resume finds no file '{pointer}', so there is no checkpoint to evaluate")
    return output_dir / pointer.read_text(encoding="utf-8").strip()


def run_training(context: Context, *, resume: bool = False) -> dict[str, Any]:
    """Train to `train.max_iter`, evaluate as configured, and leave weights and state in the output folder.

    Args:
        context: of the run.
        resume: go on from ``training_state.pth`` in the output folder; without one, start at iteration 0.

    Returns:
        ``iteration``, ``checkpoint`` (the final weights), ``results`` of the last evaluation, ``seconds``, and
        ``losses`` (last recorded values).

    Raises:
        UserError: anything in config, data or checkpoint that the user can mend; a loss that is not finite.
    """
    start_time = time.perf_counter()
    config, train = context.config, context.config.train
    state = _state_to_resume(context, resume)
    start_iter = int(state["iteration"]) if state is not None else 0
    if start_iter > train.max_iter:
        raise UserError(
            f"'{context.output_dir / STATE_FILE}' is at iteration {start_iter}, past train.max_iter {train.max_iter}"
        )
    model = build_model(
        context, checkpoint=None if state is not None else train.init_checkpoint, resumed=state is not None
    )
    wrapped = prepare_for_processes(model, context.device, train)
    optimizer = instantiate({**{key: config.optimizer[key] for key in config.optimizer}, "model": model})
    ema = EmaWeights(model, train.ema.decay) if train.ema.enabled else None
    schedule = LearningRateHook(optimizer, instantiate(config.lr_multiplier))
    seed_everything(train.seed + comm.get_rank())
    loader = build_loader(config, start_iter)
    if train.compile:
        wrapped.compile()
    trainer = Trainer(
        model=wrapped,
        loader=loader,
        optimizer=optimizer,
        device=context.device,
        amp_dtype=amp_dtype(config),
        max_grad_norm=train.clip_grad.max_norm if train.clip_grad.enabled else None,
    )
    if state is not None:
        source = context.output_dir / STATE_FILE
        restore_training_state(state, model=model, optimizer=optimizer, scaler=trainer.scaler, ema=ema, source=source)
    evaluation = _register_hooks(context, trainer, model, schedule, ema, start_iter)
    _announce(context, model, start_iter)
    if state is not None:
        restore_generators(state)
    trainer.train(start_iter, train.max_iter)
    seconds = time.perf_counter() - start_time
    logger.info("finished %d iterations in %.0f s", train.max_iter - start_iter, seconds)
    latest = {name: value for name, (value, _) in trainer.storage.latest().items()}
    return {
        "iteration": train.max_iter,
        "checkpoint": str(context.output_dir / FINAL_FILE),
        "results": dict(evaluation.results) if evaluation is not None else {},
        "seconds": seconds,
        "losses": {name: value for name, value in latest.items() if name.startswith(("total_loss", "loss"))},
    }


def _state_to_resume(context: Context, resume: bool) -> dict[str, Any] | None:
    """Return the state to go on from, None to start anew; that it is there and is not asked for is told, too."""
    file = context.output_dir / STATE_FILE
    if not resume:
        if file.is_file():
            logger.warning(
                "'%s' holds the checkpoints of a former training: this one starts at iteration 0 and replaces its "
                "state and the weights of the same names; --resume would go on with it",
                context.output_dir,
            )
        return None
    if not file.is_file():
        logger.warning("--resume finds no '%s'; the training starts at iteration 0", file)
        return None
    state = read_training_state(file)
    logger.info("resuming '%s' at iteration %d", file, state["iteration"])
    now = config_to_dict(context.config)
    for line in changed_keys(state["config"], now):
        if not line.startswith("train.output_dir:"):
            logger.warning("the config differs from the one that wrote the state: %s", line)
    return state


def build_loader(config: DictConfig, start_iter: int) -> Any:
    """Build the train loader such that its first batch is that of iteration `start_iter`.

    A loader that takes a `seed` and is given none gets `train.seed`.

    Raises:
        UserError: the config has no train loader.
    """
    node = (config.get("dataloader") or {}).get("train")
    if node is None:
        raise UserError("the config has no dataloader.train, so it can only be used with --eval-only")
    arguments = {key: node[key] for key in node}
    named, _ = target_arguments(node[TARGET])
    if "seed" in named:
        arguments.setdefault("seed", config.train.seed)
    if "start_iter" in named:
        arguments["start_iter"] = start_iter
        return instantiate(arguments)
    loader = instantiate(arguments)
    if hasattr(loader, "set_start_iter"):
        loader.set_start_iter(start_iter)
    elif start_iter > 0:
        logger.warning("the train loader cannot start at iteration %d; it repeats its first batches", start_iter)
    return loader


def _register_hooks(
    context: Context,
    trainer: Trainer,
    model: nn.Module,
    schedule: LearningRateHook,
    ema: EmaWeights | None,
    start_iter: int,
) -> EvaluationHook | None:
    config, train = context.config, context.config.train
    sha256 = config_hash(config)
    checkpoints = CheckpointHook(
        output_dir=context.output_dir,
        model=model,
        ema=ema,
        period=train.checkpoint.period,
        max_to_keep=train.checkpoint.max_to_keep,
        metadata=weights_metadata(model=model, config_sha256=sha256, config_file=context.config_file, seed=train.seed),
        config=config_to_dict(config),
    )
    evaluation = None
    if train.eval_period >= 0 and test_nodes(config):
        facts = result_facts(
            config_file=context.config_file,
            config_sha256=sha256,
            seed=train.seed,
            device=context.device,
            checkpoint=None,
        )
        tests = build_evaluators(config, facts)
        evaluation = EvaluationHook(
            evaluate=partial(_evaluate_after, context, model, tests),
            period=train.eval_period,
            ema=ema,
            checkpoints=checkpoints,
            best_metric=train.select_best.metric,
            best_mode=train.select_best.mode,
        )
    elif train.select_best.metric:
        raise UserError(f"train.select_best.metric is '{train.select_best.metric}' but this run evaluates nothing")
    trainer.register_hooks(
        [
            detectron2_hooks.IterationTimer(),
            schedule,
            EmaHook(ema) if ema is not None else None,
            checkpoints,
            evaluation,
            _writers(context, start_iter) if comm.is_main_process() else None,
        ]
    )
    return evaluation


def _evaluate_after(
    context: Context,
    model: nn.Module,
    tests: Mapping[str, tuple[Iterable[Any], DatasetEvaluator]],
    file: str | None,
    done: int,
) -> Results:
    """Evaluate between or after steps, and let evaluators record how many were done."""
    for _, evaluator in tests.values():
        if isinstance(getattr(evaluator, "provenance", None), dict):
            evaluator.provenance.update(iteration=done, checkpoint=None, checkpoint_sha256=None)
    with gathered_weights(model):
        return evaluate(model, tests, autocast_for(context), checkpoint=file)


def _writers(context: Context, start_iter: int) -> detectron2_hooks.PeriodicWriter:
    train = context.config.train
    metrics_file = context.output_dir / "metrics.json"
    _trim_metrics(metrics_file, start_iter)
    writers: list[EventWriter] = [
        ProgressPrinter(max_iter=train.max_iter, device=context.device),
        # Unsmoothed: a median over the last iterations would differ after a resume, which starts with an empty history.
        JSONWriter(str(metrics_file), window_size=1),
    ]
    if train.tensorboard:
        writers.append(TensorboardXWriter(str(context.output_dir), purge_step=start_iter))
    return detectron2_hooks.PeriodicWriter(writers, period=train.log_period)


def _trim_metrics(file: Path, start_iter: int) -> None:
    """Drop lines of iterations that this run does again (all of them when it starts anew)."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # a killed run may leave half a line
            if json.loads(line)["iteration"] < start_iter:
                kept.append(line + "\n")
    file.write_text("".join(kept), encoding="utf-8")


def _announce(context: Context, model: nn.Module, start_iter: int) -> None:
    if comm.is_main_process():
        save_config(context.config, context.output_dir / "config.yaml")
    logger.info(
        "training %s; iterations %d to %d on %d process(es), %s; output in %s\n%s",
        class_name(model),
        start_iter,
        context.config.train.max_iter,
        comm.get_world_size(),
        context.device,
        context.output_dir,
        format_parameters(count_parameters(model)),
    )
