"""Room on the disk: how much a scene needs, and what it means when a write fails."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from mmovseg.errors import UserError
from mmovseg.inference.scene.layers import Layer

_OVERVIEWS = 1 / 3
"""Every overview has a quarter of the pixels of the one before: together a third of the raster."""
_NEARLY_FULL = 8 * 2**20
_GIB = 2**30
_STDERR = 2
_SILENCE = threading.Lock()
_silenced = {"depth": 0, "kept": -1}  # standard error belongs to the process, so threads share one state

GDAL_ERRORS: tuple[type[Exception], ...] = (RasterioError, CPLE_BaseError)
"""What rasterio raises: its own errors, and here and there GDAL's as they come."""
DISK_ERRORS: tuple[type[Exception], ...] = (OSError, *GDAL_ERRORS)


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that a scene takes while it is written, and bytes that are free.

    Args:
        expected: with the compression of an ordinary scene.
        upper: when nothing can be compressed.
        free: on the disk of the output.
    """

    expected: int
    upper: int
    free: int

    def __str__(self) -> str:
        return (
            f"about {readable_size(self.expected)} of disk while writing (at most {readable_size(self.upper)}), "
            f"{readable_size(self.free)} free"
        )


def disk_need(layers: Sequence[Layer], pixels: int, folder: Path, *, present: int = 0) -> DiskNeed:
    """Estimate the room for the parts, the finished files beside them, and the overviews on their way.

    Args:
        layers: what is written.
        pixels: of the output grid.
        folder: where; need not exist yet.
        present: bytes of parts that are there already.
    """
    raw = [layer.raw_bytes(pixels) for layer in layers]
    packed = [int(size * layer.packed_share) for size, layer in zip(raw, layers, strict=True)]
    expected, upper = _while_writing(packed), _while_writing(raw)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return DiskNeed(max(0, expected - present), max(0, upper - present), shutil.disk_usage(folder).free)


def _while_writing(sizes: Sequence[int]) -> int:
    total = sum(sizes)
    return int(total + total * (1 + _OVERVIEWS) + max(sizes) * _OVERVIEWS)


def check_target(path: Path, inputs: Sequence[str | Path] = ()) -> None:
    """Refuse a file that could not be written, before anything is computed.

    Args:
        path: of the file.
        inputs: files that may not be written over.

    Raises:
        UserError: a folder or an input has that name, or its folder cannot be made or written to.
    """
    with writing(path):
        if path.is_dir():
            raise UserError(f"'{path}' is a folder, so nothing can be written there; give a file name")
        if path.exists() and not path.is_file():
            raise UserError(f"'{path}' is a pipe or a device, so nothing can be written there; give a file name")
        parent = path.parent
        while not os.path.lexists(parent):
            parent = parent.parent
        if not parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with tempfile.TemporaryFile(dir=parent):  # permissions do not tell everything; it never has a name
            pass
    for source in inputs:
        if is_same_file(path, Path(source)):
            raise UserError(f"'{path}' is an input and would be written over; give another name")


def is_same_file(first: Path, second: Path) -> bool:
    """Whether both exist and are one file, whatever links lead there."""
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False


@contextmanager
def writing(path: Path, *, keeps: str = "") -> Iterator[None]:
    """Turn a failed write into a `UserError` that names the file and the reason.

    Args:
        path: what is written.
        keeps: further words for the sentence, on what is left and how to go on.

    Raises:
        UserError: instead of `OSError` and rasterio's errors.
    """
    try:
        yield
    except UserError:
        raise
    except DISK_ERRORS as error:
        raise UserError(f"'{path}' cannot be written: {_reason(error, path)}{keeps}") from error


@contextmanager
def libtiff_silenced() -> Iterator[None]:
    """Keep what libtiff prints of a failed write off the terminal; it does so by itself, beside its error.

    Standard error is silent from when the first thread enters until the last one leaves.
    """
    with _SILENCE:
        if _silenced["depth"] == 0:
            _silence()
        _silenced["depth"] += 1
    try:
        yield
    finally:
        with _SILENCE:
            _silenced["depth"] -= 1
            if _silenced["depth"] == 0 and _silenced["kept"] >= 0:
                os.dup2(_silenced["kept"], _STDERR)
                os.close(_silenced["kept"])


def _silence() -> None:
    _silenced["kept"] = -1
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(_STDERR)
    except OSError:  # there is no standard error
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    _silenced["kept"] = kept


def _reason(error: Exception, path: Path) -> str:
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        free = None
    if full or (free is not None and free < _NEARLY_FULL):
        return "the disk is full" if free is None else f"the disk is full ({readable_size(free)} free)"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return " ".join(str(error).split()) or type(error).__name__


def readable_size(size: int) -> str:
    """Write bytes for people: ``3.2 GiB``, ``12 MiB``."""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / 2**20:.0f} MiB"
