"""The console command `mmovseg`: `mmovseg predict`, `check-pair`, `serve`, `doctor`.

Each part is imported when it is asked for, so that help comes at once and a missing extra stops nothing else.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mmovseg
from mmovseg.errors import UserError, exit_on_user_error


@dataclass(frozen=True)
class Command:
    """A subcommand: the function that does it with a list of words, what it is for, and the extra that it needs."""

    module: str
    summary: str
    extra: str | None = None
    function: str = "main"


COMMANDS = {
    "predict": Command("mmovseg.inference.scene.command", "map a scene, or many, from optical and SAR rasters"),
    "check-pair": Command("mmovseg.inference.check_pair", "say how well two rasters fit together, and by how much not"),
    "serve": Command("mmovseg.web.command", "open a page in the browser to try the model", "web", "serve_main"),
    "doctor": Command("mmovseg.doctor", "say what is installed, what is found and what is wrong"),
}


def usage() -> str:
    """Return the help text."""
    lines = ["usage: mmovseg COMMAND ...", "", "Maps of the classes that you name, from optical and SAR rasters.", ""]
    lines += [f"  {name:<12} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "mmovseg COMMAND --help says more. mmovseg --version prints the version."])


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; `argv` None takes that of the process.

    Returns:
        The exit status of the subcommand.

    Raises:
        SystemExit: 2 after one line on what to mend.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(mmovseg.__version__)
        return 0
    if words[0] not in COMMANDS:
        raise UserError(f"there is no command '{words[0]}'; known: {', '.join(COMMANDS)} (see mmovseg --help)")
    run = _load(COMMANDS[words[0]])
    named = {"prog": f"mmovseg {words[0]}"} if "prog" in inspect.signature(run).parameters else {}
    try:
        status = run(words[1:], **named)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


def _load(command: Command) -> Callable[..., object]:
    """Import a subcommand's function; what is missing is said with the way to get it."""
    try:
        function: Callable[..., object] = getattr(importlib.import_module(command.module), command.function)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "mmovseg"):
            raise
        extra = f"mmovseg[{command.extra}]" if command.extra else missing
        raise UserError(f"this command needs the package '{missing}'; run: pip install '{extra}'") from error
    return function


if __name__ == "__main__":
    sys.exit(main())
