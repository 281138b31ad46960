"""Work in a process of its own, so that the memory and the failures of one measurement do not show in the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmovseg
from mmovseg.errors import UserError


def answer_of(module: str, job: Mapping[str, Any], *, what: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run ``python -m module <job as JSON> <file>`` and return the JSON that it leaves in the file.

    Args:
        module: its main function ends with status 2 and one line on stderr when the input is wrong.
        job: plain values.
        what: names the work in error messages.
        environment: variables beside those of this process.

    Raises:
        UserError: the process refused its input, failed, or was killed, for example for want of memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", module, json.dumps(dict(job)), str(answer)]
        root = str(Path(mmovseg.__file__).resolve().parents[1])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {**os.environ, "PYTHONPATH": path, **(environment or {})}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace")
        if done.returncode == 0 and answer.is_file():
            return json.loads(answer.read_text(encoding="utf-8"))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
    if done.returncode == 2:
        raise UserError(last)
    how = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"failed ({last})"
    raise UserError(f"the process that measured {what} {how}")
