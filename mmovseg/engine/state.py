"""The full state of a training: what an unbroken run would have in memory at that iteration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from mmovseg.checkpoint.load import load_plain
from mmovseg.checkpoint.save import atomic_write
from mmovseg.engine.ema import EmaWeights
from mmovseg.engine.seeding import capture_rng, restore_rng
from mmovseg.engine.sharding import gather_on_main, like
from mmovseg.errors import UserError

logger = logging.getLogger(__name__)

STATE_FILE = "training_state.pth"
_VERSION = 1


def save_training_state(
    path: str | Path,
    *,
    iteration: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    ema: EmaWeights | None,
    config: Mapping[str, Any],
) -> None:
    """Write everything that the next iteration depends on. All processes must call it; the first one writes.

    Args:
        path: replaced atomically; readable with ``torch.load(weights_only=True)``.
        iteration: number of steps done.
        model: the unwrapped model, with its own weights (not the averaged ones).
        optimizer: its state is stored by parameter name, so that another grouping can take it over.
        scaler: loss scaler.
        ema: averaged weights, if any.
        config: resolved config in plain containers.
    """
    generators = comm.gather(capture_rng())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights = gather_on_main(model.state_dict())
    moments = {names[id(parameter)]: gather_on_main(entry) for parameter, entry in optimizer.state.items()}
    averages = gather_on_main(ema.averages) if ema is not None else {}
    if not comm.is_main_process():
        return
    state = {
        "version": _VERSION,
        "iteration": iteration,
        "model": weights,
        "optimizer": moments,
        "scaler": scaler.state_dict(),
        "ema": {**ema.state_dict(), "averages": averages} if ema is not None else None,
        "generators": generators,
        "config": dict(config),
    }
    # Through a file of Python's: given a path, torch does not tell why a write failed.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def read_training_state(path: str | Path) -> dict[str, Any]:
    """Read what `save_training_state` wrote.

    Raises:
        UserError: missing, corrupt, or not a training state.
    """
    state = load_plain(path)
    if not isinstance(state, dict) or state.get("version") != _VERSION or "iteration" not in state:
        raise UserError(f"'{path}' is not a training state that this version can resume from")
    return state


def restore_training_state(
    state: Mapping[str, Any],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    ema: EmaWeights | None,
    source: str | Path,
) -> None:
    """Put everything but the random generators back. Learning rates and decay stay as the current config says.

    Raises:
        UserError: the model or its trainable part is another one than the state's.
    """
    own, saved = model.state_dict(), state["model"]
    odd = sorted(set(own) ^ set(saved)) or sorted(name for name in own if own[name].shape != saved[name].shape)
    if odd:
        raise UserError(
            f"'{source}' is of another architecture: {len(odd)} tensors differ from the model's, for example '{odd[0]}'"
        )
    model.load_state_dict({name: like(saved[name], tensor) for name, tensor in own.items()})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    plain = optimizer.state_dict()
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    if state["optimizer"] and set(order) != set(state["optimizer"]):
        name = sorted(set(order) ^ set(state["optimizer"]))[0]
        raise UserError(f"'{source}' was saved with other trainable parameters, for example '{name}'")
    plain["state"] = {
        index: _cut_moments(state["optimizer"][name], own[name])
        for index, name in enumerate(order)
        if name in state["optimizer"]
    }
    optimizer.load_state_dict(plain)
    if state["scaler"] or not scaler.is_enabled():  # a run that starts float16 only now has no scale to take over
        scaler.load_state_dict(state["scaler"])
    if ema is not None:
        if state["ema"] is None:
            logger.warning("'%s' holds no EMA weights; the average starts at the resumed weights", source)
            ema.restart()
        else:
            ema.load_state_dict(state["ema"])


def _cut_moments(entry: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """Cut what the optimiser keeps of one parameter as the parameter itself is cut; counters stay."""
    return {
        key: like(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value
        for key, value in entry.items()
    }


def restore_generators(state: Mapping[str, Any]) -> None:
    """Set this process's random generators; must be the last thing before the first resumed step."""
    generators = state["generators"]
    if len(generators) != comm.get_world_size():
        logger.warning(
            "saved by %d processes, resumed by %d: the random numbers are not those of an unbroken run",
            len(generators),
            comm.get_world_size(),
        )
        return
    restore_rng(generators[comm.get_rank()])


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return ``"a.b: old -> new"`` for every value that differs between two plain configs."""
    lines = []
    for key in sorted({*old, *new}, key=str):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines
