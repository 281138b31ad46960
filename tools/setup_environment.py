#!/usr/bin/env python3
"""Build the virtual environment that `make` uses; run by the Makefile, standard library only.

Steps: create the environment, install `requirements/` at the versions of `requirements/constraints.txt`, install
detectron2 (tools/install_detectron2.py), install this checkout in editable mode if the environment lies inside it, and
write the stamp file last. An environment outside the checkout may serve several checkouts, so none is installed there:
the Makefile puts the checkout under test on PYTHONPATH instead.

An environment made here whose installation was interrupted is thrown away and built again (downloads come from pip's
cache). One that somebody else made is only added to, never deleted.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
OLDEST_PYTHON = (3, 11)
NEWEST_TRIED = (3, 12)
NEEDED_GB = 10.0  # 6.1 GB environment, 3 GB downloads kept by pip, some room
STATE_FILE = "mmovseg-environment"  # only in environments made here: "incomplete" or "complete"
HEARTBEAT_S = 15.0


class SetupError(RuntimeError):
    """The environment cannot be built; the message says why."""


def say(message: str) -> None:
    """Print one progress line at once, also into a pipe."""
    print(f"[environment] {message}", flush=True)


def spell_duration(seconds: float) -> str:
    """Spell a duration as `m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def folder_size_gb(folder: Path) -> float:
    """Disk use of all files below `folder` in units of 1e9 bytes, links not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)
    return total / 1e9


def last_words(log: Path) -> str:
    """What pip is busy with, from the last meaningful line of its log; empty if unknown."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    wanted = ("Collecting", "Downloading", "Using cached", "Building", "Installing collected", "Preparing")
    for line in reversed(lines):
        if line.startswith(wanted):
            line = "unpacking the packages" if line.startswith("Installing collected") else line
            line = re.sub(r"https?://\S*/", "", line)
            return re.sub(r"(\S+?-\d[^-\s]*)-\S+\.whl", r"\1", line)[:90]  # without the wheel's platform tags
    return ""


def run(command: list[str | Path], *, what: str, log: Path) -> None:
    """Run `command` with its output in `log`, say every few seconds what it does; raise `SetupError` if it fails."""
    say(what)
    begin = beat = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        )
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - beat >= HEARTBEAT_S:
                    beat = time.monotonic()
                    say(f"  {spell_duration(beat - begin)}  {last_words(log)}")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").strip().splitlines()[-15:])
        raise SetupError(f"failed to finish the step '{what}' (whole output: {log}):\n{tail}")


def create(venv: Path, log: Path) -> None:
    """Create the environment unless it is there; one that was left incomplete is made anew."""
    state = venv / STATE_FILE
    if state.is_file() and state.read_text().strip() == "incomplete":
        say(f"{venv} was left incomplete by an interrupted installation: building it again")
        shutil.rmtree(venv)
    if (venv / "bin" / "python").exists():
        if state.is_file():
            state.write_text("incomplete\n")
        return
    free_gb = shutil.disk_usage(venv.parent).free / 1e9
    if free_gb < NEEDED_GB:
        say(f"only {free_gb:.1f} GB are free at {venv.parent} and about {NEEDED_GB:.0f} GB are needed; trying anyway")
    venv.mkdir(parents=True, exist_ok=True)
    if not any(venv.iterdir()):  # only an empty folder is ours to throw away later
        state.write_text("incomplete\n")
    make_venv: list[str | Path] = [sys.executable, "-m", "venv", venv]
    try:
        run(make_venv, what=f"creating {venv} with Python {sys.version.split()[0]}", log=log)
    except SetupError:  # Debian and Ubuntu ship Python without ensurepip: let the system's pip install one
        run([*make_venv, "--without-pip"], what="creating it without pip: this Python has no ensurepip", log=log)
        run([sys.executable, "-m", "pip", "--python", venv, "install", "pip"], what="installing pip into it", log=log)


def install(venv: Path, log: Path) -> None:
    """Install everything into the environment `venv`."""
    python = venv / "bin" / "python"
    pip: list[str | Path] = [python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    constraints = ["--constraint", REQUIREMENTS / "constraints.txt"]
    run(
        [*pip, "install", "--progress-bar=off", *constraints, "setuptools", "wheel"],
        what="installing the build tools",
        log=log,
    )
    # the few source archives (fvcore, iopath, antlr4) are built with these tools and not with whatever is newest
    files = ["--requirement", REQUIREMENTS / "base.in", "--requirement", REQUIREMENTS / "dev.in"]
    run(
        [*pip, "install", "--progress-bar=off", "--no-build-isolation", *constraints, *files],
        what="installing torch and the rest of requirements/ (about 3 GB to download, 6 GB on disk, 2 to 6 minutes)",
        log=log,
    )
    run([python, ROOT / "tools" / "install_detectron2.py"], what="installing detectron2", log=log)
    say("  " + log.read_text().strip().splitlines()[-1])
    if venv.resolve().is_relative_to(ROOT):
        run(
            [*pip, "install", "--no-build-isolation", "--no-deps", "--editable", ROOT],
            what="linking this checkout (pip install --editable)",
            log=log,
        )
    try:
        run([*pip, "check"], what="checking that all versions fit together (pip check)", log=log)
    except SetupError as error:  # in somebody's own environment packages that do not concern us may disagree
        say(f"warning: {error}")


def build(venv: Path, stamp: Path) -> None:
    """Bring the environment to what `stamp` stands for and write the stamp."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    lock = venv.parent / f"{venv.name}.lock"
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another process that builds {venv}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        if stamp.is_file():
            return
        begin = time.monotonic()
        log = venv.parent / f"{venv.name}.log"
        create(venv, log)
        install(venv, log)
        if (venv / STATE_FILE).is_file():
            (venv / STATE_FILE).write_text("complete\n")
        for old in venv.glob(".installed-*"):
            old.unlink()
        stamp.write_text(time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))
        log.unlink()
        say(f"ready after {spell_duration(time.monotonic() - begin)}: {folder_size_gb(venv):.1f} GB in {venv}")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the virtual environment that make uses.")
    parser.add_argument("--venv", type=Path, required=True, help="folder of the environment")
    parser.add_argument("--stamp", type=Path, required=True, help="file to write when all is installed")
    options = parser.parse_args(arguments)
    try:
        if sys.version_info < OLDEST_PYTHON:
            raise SetupError(
                f"mmovseg needs Python 3.11 or newer and {sys.executable} is {sys.version.split()[0]}; "
                "name another one, for example: make PYTHON=python3.11 test"
            )
        if sys.version_info[:2] > NEWEST_TRIED:
            say(f"Python {sys.version.split()[0]} is newer than the pinned versions were tried with (3.11 and 3.12)")
        build(options.venv, options.stamp)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
