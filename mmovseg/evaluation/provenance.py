"""What a number needs beside it to be made again: commit, versions, device, hashes."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "torchvision", "detectron2", "timm", "open_clip_torch", "numpy", "rasterio")


def collect_provenance(**facts: Any) -> dict[str, Any]:
    """Return commit, versions and device of this process, with `facts` (config, seed, hashes, ...) added over them."""
    return {"commit": source_commit(), "versions": installed_versions(), "device": device_name(), **facts}


@lru_cache(maxsize=1)
def source_commit() -> str | None:
    """Return the commit of the checkout this package runs from, `-dirty` added when tracked files differ; else None."""
    folder = Path(__file__).resolve().parent
    try:
        # fails for an installed copy that merely lies inside somebody else's checkout
        _git("ls-files", "--error-unmatch", Path(__file__).name, folder=folder)
        head = _git("rev-parse", "HEAD", folder=folder)
        dirty = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if dirty else head


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def device_name() -> str:
    """Return the accelerator's name, or the processor architecture when there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})"


def manifest_sha256(dataset: list[dict[str, Any]]) -> str:
    """Return a hash of a list of dataset dicts (ids, paths, facts) that does not depend on its order."""
    lines = sorted(json.dumps(item, sort_keys=True, default=str) for item in dataset)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _git(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
