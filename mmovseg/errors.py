"""Errors that are the user's to mend: one sentence, no traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(ValueError):
    """Bad input: the message is one sentence that names the file or option and the value received."""


def exit_on_user_error(main: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command's `main` so that a `UserError` ends it with one line on stderr and exit status 2."""

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapped
