"""Several processes on one scene: one speaks for all, and an error of one is an error of all."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch.distributed as dist
from detectron2.utils import comm

from mmovseg.errors import UserError

T = TypeVar("T")

PATIENCE = datetime.timedelta(days=2)
"""How long a process waits for the others: one may have the sea and the other the land."""

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)
_GROUPS: dict[str, Any] = {}  # "world": the main process group, "patient": the one made beside it


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works by itself, whatever group it belongs to: one of many scenes is its own."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def world_size() -> int:
    """Return how many processes share the work."""
    return 1 if _ALONE.get() else comm.get_world_size()


def rank() -> int:
    """Return the number of this process among them."""
    return 0 if _ALONE.get() else comm.get_rank()


def local_size() -> int:
    """Return how many of them are on this machine."""
    return 1 if _ALONE.get() else comm.get_local_size()


def is_main() -> bool:
    """Whether this process speaks and assembles."""
    return rank() == 0


def gather(value: T) -> list[T]:
    """Return the values of all processes, in their order, as soon as the last one has come here.

    They are exchanged over gloo within `PATIENCE`, whatever the main group is: nccl would wait with a busy GPU, and
    either group may have been made with a limit that is meant for the steps of a training.
    """
    if world_size() == 1:
        return [value]
    group = _patient_group()
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, value, group=group)
    return cast(list[T], gathered)


def _patient_group() -> Any:
    """Return the group of all processes over gloo, made once for each main group."""
    world = dist.group.WORLD
    if _GROUPS.get("world") is not world:
        _GROUPS.update(world=world, patient=dist.new_group(backend="gloo", timeout=PATIENCE))
    return _GROUPS["patient"]


def on_main(function: Callable[[], T]) -> T:
    """Run `function` in the first process and return its result in all.

    Raises:
        UserError: it raised one; in all processes.
    """
    answer: tuple[str | None, T | None] = (None, None)
    if is_main():
        try:
            answer = (None, function())
        except UserError as error:
            answer = (str(error), None)
    message, result = gather(answer)[0]
    if message is not None:
        raise UserError(message)
    return result  # type: ignore[return-value]


def together(function: Callable[[], None]) -> None:
    """Run `function` in every process and wait for all.

    Raises:
        UserError: one of them raised one; in all processes, after all have ended.
    """
    message: str | None = None
    try:
        function()
    except UserError as error:
        message = str(error)
    first = next((text for text in gather(message) if text is not None), None)
    if first is not None:
        raise UserError(first)
