"""Several processes on one scene: one speaks for all, and an error of one is an error of all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from detectron2.utils import comm

from mmovseg.errors import UserError

T = TypeVar("T")

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


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


def is_main() -> bool:
    """Whether this process speaks and assembles."""
    return rank() == 0


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
    message, result = comm.all_gather(answer)[0] if world_size() > 1 else answer
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
    messages = comm.all_gather(message) if world_size() > 1 else [message]
    first = next((text for text in messages if text is not None), None)
    if first is not None:
        raise UserError(first)
