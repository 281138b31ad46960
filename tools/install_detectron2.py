#!/usr/bin/env python3
"""Install a pure-Python detectron2 0.6 into the environment of the interpreter that runs this file.

The package index has no `detectron2`. It has `pb1-detectron2 0.6`: the Python files of detectron2 0.6 (Apache-2.0,
upstream commit d1e0456 of 2021-10-25) as a source archive without the C++ and CUDA sources; its own build fails. This
script fetches that archive, checks its hash before anything of it is run, ports it to today's NumPy, Pillow, setuptools
and torch (each change in `PORTS`, with its reason), stands a stub in for the compiled extension, and installs the
result as a wheel named `detectron2`, so that `pip show` and `pip check` know it.

Good to know:
- A detectron2 that is already there (built from upstream, from a vendor, or by this script) is left alone.
- Newer pips (26.3 and later) refuse the archive because an optional extra of it, never installed here, names a URL.
  An older pip is therefore fetched into a temporary folder, used for this one download, and thrown away.
- Nothing else is installed: `requirements/` holds what detectron2 needs. torch has to be there first.

Usage: `python tools/install_detectron2.py` installs; `--check` only says what is there (exit status 1: nothing usable).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ARCHIVE = "pb1-detectron2==0.6"
ARCHIVE_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
FETCHING_PIP = "pip==25.3"  # the last release series that takes the archive, see above
PORTS_FILE = "PORTS.txt"  # inside the installed package: marks this build and lists what was changed


class InstallError(RuntimeError):
    """The installation cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Port:
    """One change of the sources: a regular expression that has to match exactly `places` times in `files`."""

    files: str
    pattern: str
    replacement: str
    places: int
    reason: str


PORTS = (
    Port("**/*.py", r"\bnp\.(bool|int|float|str)\b", r"\1", 19, "NumPy 1.24 removed its aliases of built-in types"),
    Port("**/*.py", r"lr_scheduler\._LRScheduler\b", "lr_scheduler.LRScheduler", 9, "public name since torch 2.0"),
    Port("data/transforms/transform.py", r"Image\.LINEAR", "Image.BILINEAR", 1, "Pillow 10 removed the old name"),
    Port("data/common.py", r"sample\((self\._fallback_candidates), k=1\)", r"sample(tuple(\1), k=1)", 1,
         "Python 3.11: random.sample takes no set"),
    Port("model_zoo/model_zoo.py", r"import pkg_resources\n", "", 1, "setuptools 82 removed pkg_resources"),
    Port("model_zoo/model_zoo.py",
         r'pkg_resources\.resource_filename\(\s+"detectron2\.model_zoo", os\.path\.join\((.*)\)\s+\)',
         r"os.path.join(os.path.dirname(__file__), \1)", 1, "setuptools 82 removed pkg_resources"),
    Port("export/__init__.py", r"from \.api import \*\n", "", 1, "torch no longer brings caffe2"),
    Port("evaluation/coco_evaluation.py", r"from .*fast_eval_api import COCOeval_opt", "COCOeval_opt = COCOeval", 1,
         "the fast COCO evaluation is compiled; the official one gives the same figures"),
    Port("utils/visualizer.py", r"return modified_color\b", "return tuple(np.clip(modified_color, 0.0, 1.0))", 1,
         "matplotlib refuses colours that rounding has put outside [0, 1]"),
    Port("engine/launch.py", r"assert torch\.cuda\.is_available\(\), .*",
         'backend = "nccl" if torch.cuda.is_available() else "gloo"', 1, "several processes also without CUDA"),
    Port("engine/launch.py", r'backend="NCCL"', "backend=backend", 1, "several processes also without CUDA"),
    Port("engine/launch.py", r"    (assert num_gpus.*)\n    (torch\.cuda\.set.*)",
         r'    if backend == "nccl":\n        \1\n        \2', 1, "several processes also without CUDA"),
)  # fmt: skip

EXTENSION_STUB = '''"""Stands in for the compiled extension, which this build of detectron2 does not have."""


def get_compiler_version():
    return "none (pure-Python build)"


get_cuda_version = get_compiler_version


def has_cuda():
    return False


def __getattr__(name):
    raise AttributeError(
        f"detectron2._C.{name} is a compiled operator and this detectron2 is a pure-Python build; "
        "to use it, build detectron2 from its upstream sources"
    )
'''

PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "detectron2"
version = "0.6"
description = "detectron2 0.6 (2021-10-25), pure-Python build of pb1-detectron2; changes: detectron2/PORTS.txt"
license = "Apache-2.0"
dependencies = [
    "Pillow>=7.1", "matplotlib", "pycocotools>=2.0.2", "termcolor>=1.1", "yacs>=0.1.8", "tabulate", "cloudpickle",
    "tqdm>4.29.0", "tensorboard", "fvcore>=0.1.5,<0.1.6", "iopath>=0.1.7", "omegaconf>=2.1", "hydra-core>=1.1",
    "torch", "torchvision",
]

[tool.setuptools]
packages.find.include = ["detectron2*"]
package-data = {"*" = ["PORTS.txt", "configs/**/*.yaml"]}
"""


def find_detectron2() -> str | None:
    """Describe the detectron2 of this environment in one line; None if there is none."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:  # no origin: a folder that merely has this name
        return None
    folder = Path(spec.origin).parent
    try:
        version = importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    origin = "pure-Python build by this script" if (folder / PORTS_FILE).is_file() else "not built by this script"
    return f"detectron2 {version} ({origin}) in {folder}"


def run_pip(*arguments: str | Path, purpose: str, pip_folder: Path | None = None) -> None:
    """Run pip of this interpreter, or the one unpacked in `pip_folder`, without output unless it fails."""
    environment = dict(os.environ)
    if pip_folder is not None:
        environment["PYTHONPATH"] = str(pip_folder)
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise InstallError(f"cannot {purpose}; pip said:\n{output}")


def fetch(folder: Path) -> Path:
    """Download the archive by hash into `folder`, unpack it there and return the unpacked source tree."""
    pip_folder = folder / "pip"
    run_pip("install", "--quiet", "--target", pip_folder, FETCHING_PIP, purpose=f"fetch {FETCHING_PIP}")
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{ARCHIVE} --hash=sha256:{ARCHIVE_SHA256}\n")
    run_pip(
        *("download", "--quiet", "--require-hashes", "--no-deps", "--no-binary=:all:", "--no-build-isolation"),
        *("--dest", folder, "--requirement", wanted),
        purpose=f"fetch {ARCHIVE} with the expected sha256",
        pip_folder=pip_folder,
    )
    source = folder / ARCHIVE.replace("==", "-")
    archive = source.parent / f"{source.name}.tar.gz"
    # "data" keeps members inside the folder; Python before 3.11.4 has no such argument
    safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    shutil.unpack_archive(archive, folder, **safe)
    return source


def apply_ports(package: Path) -> None:
    """Apply every change in `PORTS` to the sources below `package`; one that does not fit exactly is an error."""
    for port in PORTS:
        found = 0
        for file in sorted(package.glob(port.files)):
            text, count = re.subn(port.pattern, port.replacement, file.read_text(encoding="utf-8"))
            if count:
                file.write_text(text, encoding="utf-8")
            found += count
        if found != port.places:
            raise InstallError(
                f"the change '{port.pattern}' ({port.reason}) fits {found} places in {port.files} and not {port.places}"
            )


def make_buildable(source: Path) -> None:
    """Turn the unpacked archive into a tree from which a working wheel can be built."""
    package = source / "detectron2"
    for project in sorted(source.glob("projects/*/*")):
        project.rename(package / "projects" / project.name)
    apply_ports(package)
    (package / "_C.py").write_text(EXTENSION_STUB)
    changes = [f"{port.files}: {port.pattern!r} -> {port.replacement!r} ({port.reason})" for port in PORTS]
    (package / PORTS_FILE).write_text("\n".join([f"Changed from {ARCHIVE}:", "_C.py: added", *changes, ""]))
    (source / "setup.py").unlink()
    (source / "pyproject.toml").write_text(PYPROJECT)


def install() -> None:
    """Fetch, port, build and install; raises `InstallError` and installs nothing when a step fails."""
    if importlib.util.find_spec("torch") is None:
        raise InstallError("torch is not installed; install requirements/base.in first")
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        folder = Path(name)
        source = fetch(folder)
        make_buildable(source)
        built = folder / "built"
        run_pip(
            *("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", built, source),
            purpose="build the detectron2 wheel",
        )
        run_pip(
            *("install", "--quiet", "--no-deps", "--no-index", next(built.glob("detectron2-*.whl"))),
            purpose="install the detectron2 wheel",
        )


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Install a pure-Python detectron2 0.6; one that is there is kept.")
    parser.add_argument("--check", action="store_true", help="only say what is there; exit status 1 if nothing is")
    options = parser.parse_args(arguments)
    found = find_detectron2()
    if found is not None:
        print(found if options.check else f"{found}: left alone")
        return 0
    if options.check:
        print("detectron2 is not installed; run: python tools/install_detectron2.py")
        return 1
    try:
        install()
    except InstallError as error:
        print(
            f"error: detectron2 was not installed: {error}\n"
            "An own detectron2 does as well: build it from its upstream sources into this environment.",
            file=sys.stderr,
        )
        return 2
    importlib.invalidate_caches()
    print(f"installed {find_detectron2()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
