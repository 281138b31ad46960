"""What a number needs beside it to be made again: the commit and the versions."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "mmovseg",
    "torch",
    "torchvision",
    "detectron2",
    "timm",
    "open_clip_torch",
    "numpy",
    "rasterio",
    "pycocotools",
)


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
    """Return the versions of Python and of the packages that can change a result; what is not installed is left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
