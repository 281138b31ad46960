"""The images of a folder, and how to tell that one has changed."""

from __future__ import annotations

import errno
import fnmatch
import heapq
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.errors import UserError

_NOTHING_THERE = (errno.ENOENT, errno.ELOOP)  # it has vanished meanwhile, or is a link to itself


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


def list_images(folder: str | Path, *, pattern: str = "*", leave_out: Sequence[str | Path] = ()) -> list[ImageFile]:
    """Return the rasters of a folder and of those below it, sorted by path.

    Links are followed. A folder is entered once, under its own name where it has one in here, so links that lead in a
    circle end; links that lead nowhere are passed over, as are hidden files and folders.

    Args:
        folder: where to look.
        pattern: see `choose_images`.
        leave_out: files and folders in it that are not looked at, such as what a search has written.

    Raises:
        UserError: the folder does not exist, may not be read, or holds no such raster.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise UserError(f"folder '{folder}' does not exist")
    left = {_identity(os.stat(path)) for path in leave_out if os.path.exists(path)}
    found = sorted(_walk(root, left), key=lambda image: image.path)
    if not found:
        raise UserError(f"folder '{folder}' has no raster ({' '.join(RASTER_SUFFIXES)})")
    return choose_images(found, pattern)


def choose_images(files: Sequence[ImageFile], pattern: str) -> list[ImageFile]:
    """Return those images whose path below the folder matches, for example ``*_sar.tif`` or ``2024/*``.

    Raises:
        UserError: none does.
    """
    found = [image for image in files if fnmatch.fnmatchcase(image.path, pattern)]
    if not found:
        raise UserError(f"none of the {len(files)} rasters of the folder matches '{pattern}'")
    return found


def readable(text: str) -> str:
    """Return a text that UTF-8 can hold; what it cannot, as odd bytes of file names, becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _walk(root: Path, left: set[tuple[int, int]]) -> Iterator[ImageFile]:
    entered: set[tuple[int, int]] = set()
    pending = [(False, "")]  # (whether it is a link, path below the root): links come last, each kind by name
    while pending:
        _, prefix = heapq.heappop(pending)
        folder = root / prefix
        try:
            identity = _identity(os.stat(folder))
            entries = [] if identity in entered else list(os.scandir(folder))
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                continue
            raise UserError(f"folder '{folder}' cannot be read: {error.strerror}") from error
        entered.add(identity)
        for entry in entries:
            facts = None if entry.name.startswith(".") else _facts(entry)
            if facts is None or _identity(facts) in left:
                continue
            if stat.S_ISDIR(facts.st_mode):
                heapq.heappush(pending, (entry.is_symlink(), f"{prefix}{entry.name}/"))
            else:
                yield ImageFile(f"{prefix}{entry.name}", facts.st_size, facts.st_mtime_ns)


def _facts(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return what is known of a folder or of a file that by its name is a raster; None of others."""
    try:
        if entry.is_dir() or (entry.name.lower().endswith(RASTER_SUFFIXES) and entry.is_file()):
            return entry.stat()
    except OSError as error:
        if error.errno not in _NOTHING_THERE:
            raise UserError(f"'{entry.path}' cannot be looked at: {error.strerror}") from error
    return None


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino
