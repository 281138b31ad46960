"""Run test loaders through a model into evaluators, and set what `--eval-only` may choose."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.config import LazyCall
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmovseg.checkpoint.load import file_sha256
from mmovseg.config import instantiate
from mmovseg.config.instantiate import TARGET, resolve_target, target_arguments
from mmovseg.data.perturb import SarOfAnother, shuffle_sar
from mmovseg.data.vocabulary import get_vocabulary, vocabulary_from_file, vocabulary_from_names
from mmovseg.errors import UserError

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, Any]]
_SECONDS_BETWEEN_LINES = 10.0


def test_nodes(config: DictConfig) -> dict[str, tuple[DictConfig, DictConfig]]:
    """Return (loader, evaluator) nodes by name; empty when the config evaluates nothing.

    Raises:
        UserError: there are loaders without evaluators or the other way round, or their names differ.
    """
    dataloader = config.get("dataloader") or {}
    loaders, evaluators = dataloader.get("test"), dataloader.get("evaluator")
    if loaders is None and evaluators is None:
        return {}
    if loaders is None or evaluators is None:
        there, missing = ("test", "evaluator") if evaluators is None else ("evaluator", "test")
        raise UserError(f"the config has dataloader.{there} but no dataloader.{missing}, so nothing can be evaluated")
    if (TARGET in loaders) != (TARGET in evaluators):
        raise UserError("dataloader.test and dataloader.evaluator must both be one call, or both be calls by name")
    if TARGET in loaders:
        name = evaluators.get("dataset_name") or "test"
        return {str(name): (loaders, evaluators)}
    if set(loaders) != set(evaluators):
        odd = sorted(set(loaders) ^ set(evaluators))[0]
        raise UserError(
            f"dataloader.test and dataloader.evaluator must have the same names, but '{odd}' is in one of them only"
        )
    return {str(name): (loaders[name], evaluators[name]) for name in loaders}


def choose_evaluation(
    config: DictConfig, *, vocabulary: str | None = None, classes: str | None = None, modality: str | None = None
) -> None:
    """Set in every test loader and evaluator what the command line chose.

    Args:
        config: changed in place.
        vocabulary: flavour of the data set's own vocabulary (``clean``, ``released``) or a JSON file.
        classes: comma-separated class names; excludes `vocabulary`.
        modality: ``both``, ``optical``, ``sar``, or ``shuffled-sar``: both, but every sample gets the SAR raster of
            another one, the same in every call.

    Raises:
        UserError: both `vocabulary` and `classes`; nothing to evaluate; the names are empty, doubled or unknown; or
            shuffled SAR for a model that uses none.
    """
    if vocabulary is None and classes is None and modality is None:
        return
    if vocabulary is not None and classes is not None:
        raise UserError(f"--vocabulary {vocabulary} and --classes '{classes}' exclude each other; give one")
    nodes = test_nodes(config)
    if not nodes:
        raise UserError(
            "--vocabulary, --classes and --modality need a config with dataloader.test and dataloader.evaluator"
        )
    for name, (loader, evaluator) in nodes.items():
        mapper = loader.get("mapper")
        if mapper is None or TARGET not in mapper:
            raise UserError(f"--vocabulary, --classes and --modality need a mapper in the test loader '{name}'")
        if modality is not None:
            choose_modality(config, loader, evaluator, modality)
        if vocabulary is not None or classes is not None:
            prompts = _prompts_node(mapper.get("vocabulary"), vocabulary, classes)
            instantiate(prompts)  # wrong names are told now, not after minutes of loading
            _set_argument(mapper, "prompts", prompts)
            _set_argument(evaluator, "prompts", copy.deepcopy(prompts))


def choose_modality(config: DictConfig, loader: DictConfig, evaluator: DictConfig, modality: str) -> None:
    """Set in one test loader and its evaluator what the model sees; see `choose_evaluation`."""
    mapper = loader.mapper
    if modality == "shuffled-sar":
        model = config.get("model") or {}
        if "optical" in (model.get("modality"), model.get("sensor")):
            raise UserError("--modality shuffled-sar needs a model that uses SAR; this one reads optical images alone")
        for node, key in ((loader, "dataset"), (mapper, "reader")):
            if node.get(key) is None:
                raise UserError(f"--modality shuffled-sar needs a test loader with a {key} in its config")
        loader.dataset = LazyCall(shuffle_sar)(dataset=loader.dataset)
        mapper.reader = LazyCall(SarOfAnother)(reader=mapper.reader)
    _set_argument(mapper, "modality", "both" if modality == "shuffled-sar" else modality)
    _set_argument(evaluator, "modality", modality)


def _set_argument(node: DictConfig, key: str, value: Any) -> None:
    named, takes_any = target_arguments(node[TARGET])
    if key not in named and not takes_any:
        raise UserError(f"{getattr(resolve_target(node[TARGET]), '__name__', 'a call')} in the config takes no '{key}'")
    OmegaConf.update(node, key, value, merge=False, force_add=True)


def _prompts_node(own: Any, vocabulary: str | None, classes: str | None) -> DictConfig:
    """Describe the class list by a call, so that the saved config stays plain text."""
    if classes is not None:
        return LazyCall(vocabulary_from_names)(names=classes, like=copy.deepcopy(own))
    assert vocabulary is not None
    if vocabulary.endswith(".json"):
        return LazyCall(vocabulary_from_file)(path=vocabulary)
    if not OmegaConf.is_config(own) or TARGET not in own or resolve_target(own[TARGET]) is not get_vocabulary:
        raise UserError(
            f"--vocabulary {vocabulary} needs a mapper whose vocabulary comes from get_vocabulary; give a .json file"
        )
    return LazyCall(get_vocabulary)(dataset=own["dataset"], flavour=vocabulary)


def build_evaluators(config: DictConfig, facts: Mapping[str, Any]) -> dict[str, tuple[Iterable[Any], DatasetEvaluator]]:
    """Build loaders and evaluators; each evaluator is told of modality, prompts, output folder and provenance.

    Of several loaders each evaluator that asks for it also learns the name of its `loader`.

    Values that the config sets itself are kept.

    Args:
        config: whole config.
        facts: provenance.

    Raises:
        UserError: see `test_nodes`.
    """
    built: dict[str, tuple[Iterable[Any], DatasetEvaluator]] = {}
    nodes = test_nodes(config)
    several = bool(nodes) and TARGET not in config.dataloader.test
    for name, (loader, evaluator) in nodes.items():
        named, _ = target_arguments(evaluator[TARGET])
        mapper = loader.get("mapper") or {}
        known = {
            "modality": mapper.get("modality"),
            "prompts": mapper.get("prompts"),
            "loader": name if several else None,
            "output_dir": config.train.output_dir,
            "provenance": dict(facts),
        }
        arguments = {key: evaluator[key] for key in evaluator}
        for key, value in known.items():
            if key in named and arguments.get(key) is None and value is not None:
                arguments[key] = value
        built[name] = (instantiate(loader), instantiate(arguments))
    return built


def evaluate(
    model: nn.Module,
    tests: Mapping[str, tuple[Iterable[Any], DatasetEvaluator]],
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    *,
    checkpoint: str | None = None,
) -> Results:
    """Evaluate on every loader; several are also set side by side in one table. All processes must call it.

    Args:
        model: unwrapped; put into eval mode and back.
        tests: from `build_evaluators`.
        autocast: gives the precision context of a forward pass.
        checkpoint: file of these weights, to be recorded by evaluators that were built without knowing it.

    Returns:
        ``{loader: {task: {metric: value}}}`` on the main process, ``{}`` on the others.
    """
    was_training = model.training
    model.eval()
    results: Results = {}
    try:
        for name, (loader, evaluator) in tests.items():
            if checkpoint is not None and isinstance(getattr(evaluator, "provenance", None), dict):
                evaluator.provenance.update(checkpoint=checkpoint, checkpoint_sha256=file_sha256(checkpoint))
            evaluator.reset()
            _run_loader(model, name, loader, evaluator, autocast)
            answer = evaluator.evaluate()
            if comm.is_main_process():
                results[name] = {task: dict(metrics) for task, metrics in (answer or {}).items()}
    finally:
        model.train(was_training)
    if len(results) > 1:  # one evaluator prints its own table; several are worth setting side by side
        logger.info("all of them\n%s", format_results(results))
    return results


@torch.no_grad()
def _run_loader(
    model: nn.Module,
    name: str,
    loader: Iterable[Any],
    evaluator: DatasetEvaluator,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    total = len(loader) if isinstance(loader, Sized) else None
    start = last = time.perf_counter()
    done = samples = 0
    for inputs in loader:
        with autocast():
            outputs = model(inputs)
        evaluator.process(inputs, outputs)
        done, samples, now = done + 1, samples + len(inputs), time.perf_counter()
        if now - last > _SECONDS_BETWEEN_LINES:
            last = now
            left = f", eta {(now - start) / done * (total - done):.0f} s" if total else ""
            logger.info("%s: batch %d/%s%s", name, done, total if total else "?", left)
    logger.info("%s: %d samples in %.1f s on this process", name, samples, time.perf_counter() - start)


def format_results(results: Results) -> str:
    """Return a table of the summary numbers, one row a loader and task; metrics of single classes are left out."""
    rows: list[list[str]] = []
    for loader, tasks in results.items():
        for task, metrics in tasks.items():
            numbers = {
                key: value
                for key, value in metrics.items()
                if isinstance(value, int | float) and not _of_one_class(key)
            }
            rows.append(["", *numbers])
            rows.append([f"{loader} {task}", *(f"{value:.2f}" for value in numbers.values())])
    width = max((len(cell) for row in rows for cell in row[1:]), default=0)
    first = max((len(row[0]) for row in rows), default=0)
    lines: list[str] = []
    for index, row in enumerate(rows):
        if index % 2 or index == 0 or row != rows[index - 2]:  # the header once for loaders with the same metrics
            lines.append("  ".join([row[0].ljust(first), *(cell.rjust(width) for cell in row[1:])]))
    return "\n".join(lines)


def _of_one_class(metric: str) -> bool:
    return metric.startswith(("IoU-", "ACC-", "accuracy-", "AP-"))
