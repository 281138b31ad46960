"""Copy the images of a download as they are, byte by byte, for sets whose texts or boxes matter."""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning
from tqdm import tqdm

from mmovseg.data.datasets.examine import examine_raster
from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.data.datasets.manifest import write_manifest
from mmovseg.data.prepare.jobs import PrepareCounts, begin_run_folder
from mmovseg.data.prepare.rasters import PARTIAL_MARK, remove_partial_files
from mmovseg.errors import UserError

_AT_ONCE = 1024  # copies handed to the threads at a time: a fault stops the run soon


@dataclass(frozen=True)
class ImageCopy:
    """One image to copy.

    split: for example ``train``.
    role: folder in the split, ``optical`` or ``sar``.
    stem: of the new file, unique in its folder; the extension stays.
    source: the file of the download.
    """

    split: str
    role: str
    stem: str
    source: Path

    @property
    def target(self) -> Path:
        """Path below the folder of the data set."""
        return Path(self.split) / self.role / f"{self.stem}{self.source.suffix.lower()}"


def copy_images(
    copies: Sequence[ImageCopy],
    root: str | Path,
    *,
    made_by: Mapping[str, Any],
    write_texts: Callable[[], None] | None = None,
    workers: int = 1,
    show_progress: bool = True,
) -> PrepareCounts:
    """Copy the images that are not there yet, write what belongs to them, then ``<root>/manifest.json``.

    Each image is read to its end before it is copied. A run that was killed is continued by the same command; one with
    other settings is refused (`begin_run_folder`).

    Args:
        copies: all images of the data set.
        root: folder of the data set.
        made_by: json-able facts that the files depend on, no times or paths; they go into the manifest.
        write_texts: writes captions or boxes once all images are there.
        workers: threads.
        show_progress: draw a progress bar on stderr.

    Raises:
        UserError: no image, two of one name, one that is missing, damaged, or no raster, or the folder was begun with
            other facts.
    """
    root = Path(root)
    _check_copies(copies, workers)
    begin_run_folder(root, made_by)
    remove_partial_files(root)
    todo = [copy for copy in copies if not (root / copy.target).is_file()]
    for folder in {(root / copy.target).parent for copy in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    with (
        tqdm(total=len(copies), initial=len(copies) - len(todo), unit="image", disable=not show_progress) as bar,
        ThreadPoolExecutor(workers) as pool,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # here, as the filter is shared by all threads
        for start in range(0, len(todo), _AT_ONCE):
            for _ in pool.map(lambda copy: _copy(copy, root), todo[start : start + _AT_ONCE]):
                bar.update()
    if write_texts is not None:
        write_texts()
    write_manifest(root, made_by=made_by, show_progress=show_progress)
    return PrepareCounts(len(todo), len(copies) - len(todo))


def describe_copies(root: Path, copies: Sequence[ImageCopy], counts: PrepareCounts) -> str:
    """Return one line that says what is there now: images of each split, and how many of them were copied."""
    stems = {(copy.split, copy.stem) for copy in copies}
    splits = Counter(split for split, _ in stems)
    numbers = ", ".join(f"{split} {splits[split]}" for split in dict.fromkeys(copy.split for copy in copies))
    return f"{root}: {numbers}; {counts.written} files copied, {counts.finished_before} were there"


def _copy(copy: ImageCopy, root: Path) -> None:
    problem = examine_raster(copy.source, is_label=False).problem
    if problem:
        raise UserError(f"image '{copy.source}' {problem}")
    target = root / copy.target
    partial = target.with_name(f".{target.name}{PARTIAL_MARK}{os.getpid()}")
    try:
        shutil.copyfile(copy.source, partial)
        os.replace(partial, target)
    except OSError as error:
        raise UserError(f"image '{copy.source}' cannot be copied to '{target}': {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _check_copies(copies: Sequence[ImageCopy], workers: int) -> None:
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    if not copies:
        raise UserError("there is nothing to prepare: the source holds no image")
    seen: dict[tuple[str, str, str], Path] = {}
    for copy in copies:
        key = (copy.split, copy.role, copy.stem)
        if key in seen:
            raise UserError(f"'{seen[key]}' and '{copy.source}' would both become '{copy.target}'")
        seen[key] = copy.source
    missing = [copy.source for copy in copies if not copy.source.is_file()]
    if missing:
        raise UserError(f"image '{missing[0]}' does not exist ({len(missing)} of {len(copies)} images are missing)")
    strange = [copy.source for copy in copies if copy.source.suffix.lower() not in RASTER_SUFFIXES]
    if strange:
        raise UserError(f"image '{strange[0]}' is of no known kind ({' '.join(RASTER_SUFFIXES)})")
