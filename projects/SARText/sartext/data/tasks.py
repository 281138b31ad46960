"""What a test loader asks of an image-text model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError

Task = Literal["embedding", "caption", "answer"]


class AskingMapper:
    """Say in every model input what the model is asked for, so that one model serves test loaders of several tasks.

    Args:
        mapper: dataset dict -> model input.
        task: ``embedding`` (retrieval), ``caption`` or ``answer``.

    Raises:
        UserError: another task.
    """

    def __init__(self, *, mapper: Callable[[dict[str, Any]], ModelInput], task: Task) -> None:
        if task not in get_args(Task):
            raise UserError(f"the task of a loader is '{task}', expected one of {', '.join(get_args(Task))}")
        self.mapper, self.task = mapper, task

    def __call__(self, dataset_dict: dict[str, Any]) -> ModelInput:
        """Map one sample."""
        item = self.mapper(dataset_dict)
        item["task"] = self.task
        return item
