"""The images of a folder, and how to tell that one has changed."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.errors import UserError


@dataclass(frozen=True)
class ImageFile:
    """One image.

    path: below the folder, with forward slashes.
    size: bytes.
    changed_ns: time of the last change, nanoseconds; with `size` it says whether an embedding is still of this file.
    """

    path: str
    size: int
    changed_ns: int


def list_images(folder: str | Path, *, pattern: str = "*") -> list[ImageFile]:
    """Return the rasters of a folder and of those below it, sorted by path.

    Args:
        folder: hidden files and folders in it are passed over.
        pattern: of the path below it, for example ``*_sar.tif`` or ``2024/*``.

    Raises:
        UserError: the folder does not exist, or holds no such raster.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"folder '{folder}' does not exist")
    found = [image for image in _walk(root, "") if fnmatch.fnmatchcase(image.path, pattern)]
    if not found:
        what = "" if pattern == "*" else f" that matches '{pattern}'"
        raise UserError(f"folder '{folder}' has no raster{what} ({' '.join(RASTER_SUFFIXES)})")
    return sorted(found, key=lambda image: image.path)


def _walk(folder: Path, prefix: str) -> Iterator[ImageFile]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"folder '{folder}' cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
        elif entry.name.lower().endswith(RASTER_SUFFIXES) and entry.is_file():
            facts = entry.stat()
            yield ImageFile(f"{prefix}{entry.name}", facts.st_size, facts.st_mtime_ns)
