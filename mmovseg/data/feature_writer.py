"""Fill a folder of features (see `features`) row by row: a killed run can go on, and a full disk is an error."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmovseg.checkpoint.save import atomic_write
from mmovseg.data.features import INDEX_FILE, UNFINISHED_FILE, first_difference, read_json, row_shapes
from mmovseg.errors import UserError

PROGRESS_FILE = "progress.json"
LOCK_FILE = ".lock"
_MARGIN = 1.01  # what a file system takes beside the bytes, and the index
_SYNC_EVERY_S = 10.0  # a killed run loses no more than this


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Make a folder and keep a second process from filling it too; the claim goes with the process.

    Raises:
        UserError: the folder cannot be written to, or another process has claimed it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise UserError(f"folder '{folder}' cannot be written: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"folder '{folder}' is being filled by another process") from error
        yield


def count_rows(index: Mapping[str, Any]) -> int:
    """Return images times views."""
    return len(index["images"]) * int(index["views"])


def bytes_per_row(index: Mapping[str, Any]) -> int:
    """Return what a view of an image takes on disk."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in row_shapes(index).values())


def describe_size(index: Mapping[str, Any]) -> str:
    """Return in words what a store holds and how large it is."""
    levels = list(index["levels"].values())
    shape = " x ".join(map(str, levels[0]))
    tokens = ", with class tokens" if index["globals"] else ""
    return (
        f"{len(index['images'])} images x {index['views']} views x {len(levels)} levels of {shape} {index['dtype']}"
        f"{tokens}: {bytes_per_row(index) * count_rows(index) / 1e9:.2f} GB"
    )


def find_progress(folder: Path, index: Mapping[str, Any]) -> tuple[int, bool]:
    """Return how many rows of a store are there already, and whether it is finished.

    Raises:
        UserError: the folder was begun with something else than `index` says.
    """
    finished, begun = folder / INDEX_FILE, folder / UNFINISHED_FILE
    path = finished if finished.is_file() else begun
    if not path.is_file():
        return 0, False
    found = first_difference(_made_from(read_json(path)), _made_from(index))
    if found:
        raise UserError(
            f"folder '{folder}' was begun with something else: {found}; remove it or choose another --output"
        )
    if path == finished:
        return count_rows(index), True
    progress = folder / PROGRESS_FILE
    return (int(read_json(progress)["rows"]) if progress.is_file() else 0), False


def _made_from(index: Mapping[str, Any]) -> Any:
    """Return what decides the content, as JSON gives it back; a teacher counts by content, not by its path."""
    kept = {key: value for key, value in index.items() if key != "made_by"}
    kept["teacher"] = {key: index["teacher"][key] for key in ("sha256", "view")}
    return json.loads(json.dumps(kept))


def check_space(folder: Path, index: Mapping[str, Any], done: int) -> int:
    """Return the free bytes of the disk.

    Raises:
        UserError: the rows that are missing do not fit.
    """
    free = shutil.disk_usage(folder).free
    missing = count_rows(index) - done
    need = int(missing * bytes_per_row(index) * _MARGIN)
    if need > free:
        raise UserError(
            f"'{folder}' needs {need / 1e9:.2f} GB more for {missing} views, but only {free / 1e9:.2f} GB are free; "
            "use fewer views, float16 or another disk"
        )
    return free


class FeatureWriter:
    """Append rows to all files of a store. What `progress.json` says is on disk before it says so.

    Use as a context: on the way out the rows so far are kept, and with all rows there the store becomes readable.

    Args:
        folder: claimed by the caller.
        index: what the store will be, see `features`.
        done: rows that are there, from `find_progress`.

    Raises:
        UserError: the folder cannot be written to, or holds less than its progress says.
    """

    def __init__(self, folder: Path, index: Mapping[str, Any], done: int) -> None:
        self.folder, self.index, self.done = folder, index, done
        self._shapes = row_shapes(index)
        _write_json(folder / UNFINISHED_FILE, index)
        rows = count_rows(index)
        self._files = {
            name: _RowFile(folder / f"{name}.npy", rows, shape, dtype, done=done)
            for name, (shape, dtype) in self._shapes.items()
        }
        self._synced_at = time.monotonic()

    def __enter__(self) -> FeatureWriter:
        return self

    def append(self, rows: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        """Write the next rows.

        Args:
            rows: (n, ...) for every file, by stem.
            names: of the n images, for messages.

        Raises:
            UserError: a value does not fit the type on disk, or the disk is full.
        """
        stored = {name: self._convert(name, rows[name], names) for name in self._files}
        try:
            for name, file in self._files.items():
                file.append(stored[name])
            self.done += len(names)
            if time.monotonic() - self._synced_at >= _SYNC_EVERY_S:
                self._sync()
        except OSError as error:
            raise UserError(f"features cannot be written to '{self.folder}': {error.strerror}") from error

    def _convert(self, name: str, rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
        dtype = self._shapes[name][1]
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(rows, dtype=dtype)
        finite = np.isfinite(stored).reshape(len(names), -1).all(axis=1)
        if not finite.all():
            raise UserError(
                f"the teacher's features '{name}' of image '{names[int(np.argmin(finite))]}' hold a value that {dtype} "
                "cannot; try --dtype float32"
            )
        return stored

    def _sync(self) -> None:
        for file in self._files.values():
            file.sync()
        _write_json(self.folder / PROGRESS_FILE, {"rows": self.done})
        self._synced_at = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # after an error the rows may be half on disk: the last progress holds, and the rest is cut off next time
            with contextlib.suppress(OSError) if kind is not None else contextlib.nullcontext():
                self._sync()
        finally:
            for file in self._files.values():
                file.close()
        if kind is None and self.done == count_rows(self.index):
            os.replace(self.folder / UNFINISHED_FILE, self.folder / INDEX_FILE)
            (self.folder / PROGRESS_FILE).unlink(missing_ok=True)


class _RowFile:
    """A .npy file whose rows are appended in order; before the last one it is shorter than its header says.

    Written as a stream, not through a memory map, so that a full disk is an error and not a killed process.
    """

    def __init__(self, path: Path, rows: int, shape: tuple[int, ...], dtype: np.dtype, *, done: int) -> None:
        header = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *shape)}
        np.lib.format.write_array_header_1_0(header, described)
        size = len(header.getvalue()) + done * math.prod(shape) * dtype.itemsize
        if done and (not path.is_file() or path.stat().st_size < size):
            raise UserError(
                f"feature file '{path}' is shorter than its progress says; remove the folder and start anew"
            )
        self._file = path.open("r+b" if done else "w+b")
        if not done:
            self._file.write(header.getvalue())
        self._file.truncate(size)
        self._file.seek(size)

    def append(self, rows: np.ndarray) -> None:
        self._file.write(rows.data)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported before
            self._file.close()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
