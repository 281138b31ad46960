"""Several processes on one scene: one speaks for all, and an error of one is an error of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from detectron2.utils import comm

from mmovseg.errors import UserError

T = TypeVar("T")


def on_main(function: Callable[[], T]) -> T:
    """Run `function` in the first process and return its result in all.

    Raises:
        UserError: it raised one; in all processes.
    """
    answer: tuple[str | None, T | None] = (None, None)
    if comm.is_main_process():
        try:
            answer = (None, function())
        except UserError as error:
            answer = (str(error), None)
    message, result = comm.all_gather(answer)[0] if comm.get_world_size() > 1 else answer
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
    messages = comm.all_gather(message) if comm.get_world_size() > 1 else [message]
    first = next((text for text in messages if text is not None), None)
    if first is not None:
        raise UserError(first)
