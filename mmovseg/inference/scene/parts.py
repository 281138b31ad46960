"""The output of a scene as it grows: strips of rows on the disk, which are also the journal of what is done.

A part is one strip of rows at full width, a small GeoTIFF for each layer, in the folder ``<output>.parts``. It is
written under a temporary name and renamed when it is whole, so that the parts that exist are those that are done,
whoever wrote them and whatever was killed. `PartStore.finish` joins them to the finished files and removes the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from mmovseg.errors import UserError
from mmovseg.inference.grid import Grid, map_point
from mmovseg.inference.scene.cog import BLOCK, CACHE_BYTES, write_cog
from mmovseg.inference.scene.disk import (
    DISK_ERRORS,
    GDAL_ERRORS,
    DiskNeed,
    check_target,
    disk_need,
    libtiff_silenced,
    readable_size,
    writing,
)
from mmovseg.inference.scene.layers import Layer
from mmovseg.inference.scene.options import MAP_SUFFIXES

PLAN_TAG = "MMOVSEG_PLAN"
"""Tag of parts and finished files: a hash of everything that decides the pixels."""

_PLAN_FILE, _LOCK_FILE, _FINISH_FOLDER = "plan.json", "lock", "finish"
_TEMPORARY = ".tmp"
_TEMPORARIES = (f"part-*{_TEMPORARY}", f"{_PLAN_FILE}*{_TEMPORARY}")
_SIDECARS = (".aux.xml", ".ovr", ".msk")
_MOST_DIFFERENCES = 3
_LOCK_TRIALS = 10
_LOCKS: dict[Path, IO[bytes]] = {}  # held by this process: folder of parts -> open lock file


class PartStore:
    """The growing output of one scene.

    In a group of processes the first one calls `begin`, then any of them `write` different parts, then the first one
    `finish`; the caller puts barriers between. Whatever happens, the first calls `close`.

    Args:
        output: the main file, ``*.tif``; the other layers lie beside it.
        grid: of the output.
        layers: what is written. The first has the suffix "".
        plan: json-able, everything that decides the pixels.
        part_rows: rows from, to (exclusive) of each part, together the whole height, in order.
        inputs: files that the scene is made from; none of them may be written over.
    """

    def __init__(
        self,
        output: str | Path,
        grid: Grid,
        layers: Sequence[Layer],
        *,
        plan: Mapping[str, Any],
        part_rows: Sequence[tuple[int, int]],
        inputs: Sequence[str | Path] = (),
    ) -> None:
        self.output = Path(output)
        self.grid, self.layers = grid, tuple(layers)
        self.part_rows = [(int(start), int(stop)) for start, stop in part_rows]
        edges = [0, *(stop for _, stop in self.part_rows)]
        if [start for start, _ in self.part_rows] != edges[:-1] or edges[-1] != grid.height:
            raise ValueError(f"the parts {self.part_rows} do not follow each other from row 0 to {grid.height}")
        self.folder = self.output.with_name(self.output.name + ".parts")
        self.files = [layer.path_of(self.output) for layer in self.layers]
        facts = {
            "plan": dict(plan),
            "crs": grid.crs.to_wkt() if grid.crs else None,
            "transform": [float(number) for number in grid.transform[:6]],
            "size": [grid.height, grid.width],
            "layers": [asdict(layer) for layer in self.layers],
        }
        self._facts: dict[str, Any] = json.loads(json.dumps(facts, sort_keys=True))
        self.digest = _digest(self._facts)
        self._facts["part_rows"] = [list(rows) for rows in self.part_rows]
        self._inputs = [Path(path) for path in inputs]
        self.complete = False
        self.notes: list[str] = []

    def is_there(self) -> bool:
        """Whether the finished files of this very plan are there."""
        return all(path.exists() and _plan_of(path) == self.digest for path in self.files)

    def begin(self, *, restart: bool = False, overwrite: bool = False) -> set[int]:
        """Make ready to write.

        Sets `complete` when the finished files of this very plan are there already, and adds to `notes` what the user
        should know.

        Args:
            restart: throw the parts of an earlier run away.
            overwrite: replace finished files that are there.

        Returns:
            Numbers of the parts that are done.

        Raises:
            UserError: the output cannot be written, is an input, or is there already with another plan; the parts are
                of another plan; another process is writing them; there is not enough room on the disk.
        """
        check_output(self.output, self.layers, inputs=self._inputs)
        theirs = [path for path in self.files if path.exists() and _plan_of(path) != self.digest]
        self.complete = not overwrite and not theirs and all(path.exists() for path in self.files)
        if self.complete:
            if self._earlier() == self._facts:  # killed between renaming and removing
                self._acquire()
                self.discard()
            return set(range(len(self.part_rows)))
        if theirs and not overwrite:
            raise UserError(
                f"'{theirs[0]}' exists and was made from other inputs or with other options; "
                "give --overwrite to replace it, or another --output"
            )
        found = self._adopt(restart)
        try:
            done = self._check_parts() if found else set()
            self._open_folder()
            self._check_room()
        except UserError:
            self.close()
            raise
        return done

    def write(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a part.

        Args:
            index: its number.
            arrays: layer name -> (rows, W) or (bands, rows, W), of the layer's type.

        Raises:
            UserError: the disk is full, or the folder cannot be written to.
        """
        start, stop = self.part_rows[index]
        for layer in self.layers:
            array = arrays[layer.name]
            array = array[None] if array.ndim == 2 else array
            if array.shape != (layer.bands, stop - start, self.grid.width) or array.dtype != layer.dtype:
                raise ValueError(f"part {index} of layer '{layer.name}' is {array.dtype} of shape {array.shape}")
            path = self._part(index, layer)
            temporary = path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY}")
            try:
                with writing(path), libtiff_silenced():
                    self._write_part(temporary, index, layer, array)
                    os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def finish(self, tags: Mapping[str, str]) -> list[Path]:
        """Join the parts to the finished files and remove them. A second call after a failure goes on.

        Args:
            tags: of every file.

        Returns:
            The files, in the order of the layers.

        Raises:
            UserError: the disk is full or a file cannot be written. No new file is left then, but the parts are.
        """
        if self.complete:
            return self.files
        missing = [i for i in range(len(self.part_rows)) if not all(self._part(i, la).exists() for la in self.layers)]
        if missing:
            raise ValueError(f"{len(missing)} parts are not written yet, the first is {missing[0]}")
        work = self.folder / _FINISH_FOLDER
        keeps = f"; what is computed is kept in '{self.folder}', so mend this and run the command again"
        shutil.rmtree(work, ignore_errors=True)
        try:
            for layer, path in zip(self.layers, self.files, strict=True):
                strips = [(self._part(index, layer), *rows) for index, rows in enumerate(self.part_rows)]
                with writing(path, keeps=keeps), libtiff_silenced():
                    work.mkdir(exist_ok=True)
                    write_cog(layer, strips, work / path.name, self.grid, {**tags, PLAN_TAG: self.digest})
            # The main file comes last: where it is, the others are.
            for path in reversed(self.files):
                with writing(path, keeps=keeps):
                    _put(work / path.name, path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self.complete = True
        self.discard()
        return self.files

    def close(self) -> None:
        """Let go of the parts: they stay for a later run, and their folder goes when none is done.

        Does nothing where `begin` was not called or has refused, since the parts may be those of another run.
        """
        if self.folder.resolve() not in _LOCKS:
            return
        if any(path.suffix == ".tif" for path in self._own_files()):
            self._release()
        else:
            self.discard()

    def discard(self) -> None:
        """Remove the parts; a file in their folder that is not ours stays, and the folder with it."""
        for path in self._own_files():
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / _FINISH_FOLDER, ignore_errors=True)
        if self.folder.is_dir():
            # While it is still held: once let go it may be the lock of the next run.
            (self.folder / _LOCK_FILE).unlink(missing_ok=True)
        self._release()
        with suppress(OSError):
            self.folder.rmdir()  # only when it is empty

    def disk_need(self) -> DiskNeed:
        """Estimate the room that is still needed on the disk, and how much there is."""
        present = sum(path.stat().st_size for path in self._own_files() if path.suffix == ".tif")
        return disk_need(self.layers, self.grid.height * self.grid.width, self.output.parent, present=present)

    def _part(self, index: int, layer: Layer) -> Path:
        return self.folder / f"part-{index:05d}.{layer.name}.tif"

    def _own_files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        patterns = ("part-*.tif", *_TEMPORARIES, _PLAN_FILE)
        return sorted({path for pattern in patterns for path in self.folder.glob(pattern)})

    def _adopt(self, restart: bool) -> bool:
        """Take over what an earlier run has left; return whether there are parts of this plan."""
        if not os.path.lexists(self.folder):
            return False
        if not self.folder.is_dir():
            raise UserError(f"'{self.folder}' is in the way: the folder of unfinished parts needs that name")
        self._acquire()
        earlier = self._earlier()
        if restart or earlier is None:
            self._clear()
            return False
        if earlier != self._facts:
            self._release()
            raise UserError(
                f"'{self.folder}' holds parts of a run with other settings ({_differences(earlier, self._facts)}); "
                "give --restart to throw them away, or the settings of that run to go on with it"
            )
        for pattern in _TEMPORARIES:
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / _FINISH_FOLDER, ignore_errors=True)
        return True

    def _earlier(self) -> dict[str, Any] | None:
        """Return what the parts were made from, None when a run was killed before it had written that."""
        try:
            return json.loads((self.folder / _PLAN_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _clear(self) -> None:
        for path in self._own_files():
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / _FINISH_FOLDER, ignore_errors=True)

    def _check_parts(self) -> set[int]:
        done, damaged = set(), 0
        for index in range(len(self.part_rows)):
            paths = [self._part(index, layer) for layer in self.layers]
            present = [path.exists() for path in paths]
            if all(present) and all(self._is_whole(index, layer) for layer in self.layers):
                done.add(index)
            elif any(present):
                damaged += all(present)
                for path in paths:
                    path.unlink(missing_ok=True)
        if damaged:
            self.notes.append(f"{damaged} damaged parts in '{self.folder}' are computed again")
        return done

    def _is_whole(self, index: int, layer: Layer) -> bool:
        start, stop = self.part_rows[index]
        shape = (layer.bands, stop - start, self.grid.width)
        try:
            with _quiet(), rasterio.open(self._part(index, layer)) as part:
                if (part.count, part.height, part.width) != shape or set(part.dtypes) != {layer.dtype}:
                    return False
                bands = (part.read(band) for band in part.indexes)
                return part.tags().get(PLAN_TAG) == self._mark(index, bands)
        except DISK_ERRORS:
            return False

    def _mark(self, index: int, bands: Iterable[np.ndarray]) -> str:
        """Return what a part says about itself: plan, place and checksum, as GDAL does not notice every damage."""
        checksum = 0
        for band in bands:
            checksum = zlib.crc32(np.ascontiguousarray(band).data, checksum)
        return f"{self.digest} {index} {checksum:08x}"

    def _check_room(self) -> None:
        need = self.disk_need()
        if need.free < need.expected:
            raise UserError(
                f"there is not enough room for '{self.output}': it takes about {readable_size(need.expected)} while it "
                f"is written (the parts and the finished files), and {readable_size(need.free)} are free"
            )
        if need.free < need.upper:
            self.notes.append(
                f"the disk may run full: '{self.output}' takes up to {readable_size(need.upper)} while it is written "
                f"if its pixels cannot be compressed, and {readable_size(need.free)} are free"
            )

    def _open_folder(self) -> None:
        with writing(self.output):
            try:
                self._acquire()
            except UserError:
                with suppress(OSError):
                    self.folder.rmdir()  # only when it is empty
                raise
            temporary = self.folder / f"{_PLAN_FILE}{_TEMPORARY}"
            temporary.write_text(json.dumps(self._facts, indent=1), encoding="utf-8")
            os.replace(temporary, self.folder / _PLAN_FILE)

    def _acquire(self) -> None:
        """Keep other runs out. The system lets go of the lock when the process ends, however it ends."""
        self._release()  # this process may try again after an interruption
        for _ in range(_LOCK_TRIALS):
            with writing(self.output):
                self.folder.mkdir(parents=True, exist_ok=True)
                try:
                    lock = (self.folder / _LOCK_FILE).open("ab")
                except FileNotFoundError:
                    continue  # a run that ends has removed the folder
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                break
            except OSError:
                pass  # a network disk without locks: then nobody is kept out
            if self._is_lock(lock):
                _LOCKS[self.folder.resolve()] = lock
                return
            lock.close()  # a run that ends has removed the file while it was opened here
        raise UserError(f"another run is writing '{self.output}' at this moment")

    def _is_lock(self, lock: IO[bytes]) -> bool:
        """Whether others who want the lock find this very file."""
        try:
            return os.path.samestat(os.fstat(lock.fileno()), os.stat(self.folder / _LOCK_FILE))
        except FileNotFoundError:
            return False

    def _release(self) -> None:
        lock = _LOCKS.pop(self.folder.resolve(), None)
        if lock is not None:
            lock.close()

    def _write_part(self, path: Path, index: int, layer: Layer, array: np.ndarray) -> None:
        bands, rows, width = array.shape
        start = self.part_rows[index][0]
        profile: dict[str, Any] = {"driver": "GTiff", "height": rows, "width": width, "count": bands}
        profile |= {"dtype": layer.dtype, "nodata": layer.nodata, "crs": self.grid.crs}
        a, b, _, d, e, _ = self.grid.transform[:6]
        left, top = map_point(self.grid.transform, 0, start)
        profile |= {"transform": Affine(a, b, left, d, e, top)}
        profile |= {"compress": "deflate", "zlevel": 1, "predictor": 1 if layer.scale is None else 2}
        # Tiled, since the finished file is read tile by tile; and each band for itself, since it is read so.
        profile |= {"tiled": True, "blockxsize": _side(width), "blockysize": _side(rows), "interleave": "band"}
        with _quiet():
            with rasterio.open(path, "w", **profile) as part:
                part.write(array)
                part.update_tags(**{PLAN_TAG: self._mark(index, array)})
            with path.open("rb") as file:
                os.fsync(file.fileno())
            # GDAL does not report every write that failed when the disk ran full.
            with rasterio.open(path) as part:
                for band in range(bands):
                    if not np.array_equal(part.read(band + 1), array[band]):
                        raise OSError(None, f"part {index} does not read back as it was written")


def check_output(output: str | Path, layers: Sequence[Layer], *, inputs: Sequence[str | Path] = ()) -> None:
    """Refuse an output that could not be written, before anything is computed.

    Args:
        output: the main file.
        layers: what is written.
        inputs: files that may not be written over.

    Raises:
        UserError: another ending than .tif, a folder or an input has that name, or its folder cannot be made.
    """
    output = Path(output)
    if output.suffix.lower() not in MAP_SUFFIXES:
        raise UserError(f"the map is a GeoTIFF, so --output must end in .tif, but it is '{output}'")
    for layer in layers:
        check_target(layer.path_of(output), inputs)


def _put(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    for ending in _SIDECARS:  # of the file that was there before
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _plan_of(path: Path) -> str | None:
    try:
        with _quiet(), rasterio.open(path) as source:
            return source.tags().get(PLAN_TAG)
    except GDAL_ERRORS:
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Bound GDAL's cache, keep it from writing .aux.xml files, and let rasters without place pass."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_PAM_ENABLED="NO"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _side(pixels: int) -> int:
    """Return the side of a tile for so many pixels: a multiple of 16, as TIFF wants it, and at most `BLOCK`."""
    return min(BLOCK, -(-pixels // 16) * 16)


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    old, new = _flatten(earlier), _flatten(now)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    words = [f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys[:_MOST_DIFFERENCES]]
    more = len(keys) - len(words)
    return "; ".join(words) + (f"; and {more} more" if more else "")


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = {str(index): item for index, item in enumerate(value)}.items()
    else:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= _flatten(item, f"{name}.{key}" if name else str(key))
    return flat
