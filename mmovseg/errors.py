"""Errors that are the user's to mend: one sentence, no traceback."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(ValueError):
    """Bad input: the message is one sentence that names the file or option and the value received."""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are a `UserError` like all others, instead of a usage of many lines and an exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def one_line(error: BaseException | str) -> str:
    """Return a message as one printable line: what a file name may hold, line ends too, is written as an escape."""
    text = str(error).strip()
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )


def exit_on_user_error(main: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command's `main` so that a `UserError` ends it with one line on stderr and exit status 2."""

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            sys.exit(2)

    return wrapped
