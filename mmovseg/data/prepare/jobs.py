"""Run a list of jobs, one output tile each, with workers, a progress bar, and no tile done twice."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmovseg.data.datasets.manifest import write_manifest
from mmovseg.data.prepare.rasters import LAYER_SUFFIXES, Layer, remove_partial_files, write_layer
from mmovseg.errors import UserError

RUN_FILE = "prepare.json"


@dataclass(frozen=True)
class TileJob:
    """One output tile.

    split: for example ``train``.
    stem: of its files, unique in the split.
    folders: what `make` returns, for example ``("optical", "sar", "label")``.
    make: returns one layer a folder. Called in another process: a function of a module or a `functools.partial` of one.
        It must depend on its arguments alone, so that a run in pieces equals an unbroken one.
    """

    split: str
    stem: str
    folders: tuple[str, ...]
    make: Callable[[], Mapping[str, Layer]]


@dataclass(frozen=True)
class PrepareCounts:
    """How many tiles a run wrote, and how many it found finished."""

    written: int
    finished_before: int


def prepare_dataset(
    jobs: Sequence[TileJob],
    root: str | Path,
    *,
    made_by: Mapping[str, Any],
    workers: int = 1,
    show_progress: bool = True,
) -> PrepareCounts:
    """Make the tiles that are not there yet, then write ``<root>/manifest.json``.

    A run that was killed leaves finished tiles and is continued by the same command. What it was begun with is kept
    in ``<root>/prepare.json``; a command with other settings is refused there, because its tiles would be mixed.

    Args:
        jobs: all tiles of the data set.
        root: folder of the data set; tiles become ``<root>/<split>/<folder>/<stem>.<png or tif>``.
        made_by: json-able facts that the tiles depend on (script, seed, tile size, ...), no times or paths; they go
            into the manifest.
        workers: processes; 1 works in this one.
        show_progress: draw a progress bar on stderr.

    Raises:
        UserError: no jobs, a stem that comes twice, a folder begun with other facts, layers of different size, or
            whatever `make` raises.
    """
    root = Path(root)
    _check_jobs(jobs, workers)
    begin_run_folder(root, made_by)
    remove_partial_files(root)
    todo = [job for job in jobs if not is_finished(job, root)]
    with tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="tile", disable=not show_progress) as bar:
        if workers == 1 or len(todo) < 2:
            for job in todo:
                run_job(job, root)
                bar.update()
        else:
            _run_in_processes(todo, root, workers, bar)
    write_manifest(root, made_by=made_by, show_progress=show_progress)
    return PrepareCounts(len(todo), len(jobs) - len(todo))


def is_finished(job: TileJob, root: Path) -> bool:
    """Return whether all files of a tile are there; a file has its name only when it is whole."""
    bases = (root / job.split / folder / job.stem for folder in job.folders)
    return all(any(os.path.exists(f"{base}{suffix}") for suffix in LAYER_SUFFIXES) for base in bases)


def run_job(job: TileJob, root: Path) -> None:
    """Make and write one tile.

    Raises:
        UserError: from `make`, or its layers are not those promised or differ in size.
    """
    layers = job.make()
    if set(layers) != set(job.folders):
        raise ValueError(f"tile '{job.stem}' promised {sorted(job.folders)} and made {sorted(layers)}")
    sizes = {folder: layer.size for folder, layer in layers.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{folder} {height}x{width}" for folder, (height, width) in sizes.items())
        raise UserError(f"the rasters of tile '{job.stem}' ({job.split}) differ in size: {text}")
    for folder in job.folders:
        write_layer(root / job.split / folder, job.stem, layers[folder])


def _run_in_processes(jobs: Sequence[TileJob], root: Path, workers: int, bar: tqdm) -> None:
    # spawn: GDAL and torch hold threads and locks that a forked child would inherit half-way.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, len(jobs))) as pool:
        for message in pool.imap_unordered(_try_job, [(job, root) for job in jobs]):
            if message is not None:
                raise UserError(message)
            bar.update()


def _try_job(work: tuple[TileJob, Path]) -> str | None:
    try:
        run_job(*work)
    except UserError as error:
        return str(error)
    return None


def _check_jobs(jobs: Sequence[TileJob], workers: int) -> None:
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    if not jobs:
        raise UserError("there is nothing to prepare: the source holds no pair")
    seen: set[tuple[str, str]] = set()
    for job in jobs:
        if (job.split, job.stem) in seen:
            raise UserError(f"the tile name '{job.stem}' comes twice in {job.split}")
        seen.add((job.split, job.stem))


def begin_run_folder(root: Path, made_by: Mapping[str, Any]) -> None:
    """Write down in ``prepare.json`` what this folder is made with, or compare with what is written.

    Raises:
        UserError: the folder was begun with other facts, or cannot be written.
    """
    path, text = root / RUN_FILE, json.dumps(made_by, indent=1, sort_keys=True) + "\n"
    try:
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            facts = json.loads(text)
            changed = sorted(key for key in {*before, *facts} if before.get(key) != facts.get(key))
            if changed:
                key = changed[0]
                raise UserError(
                    f"folder '{root}' was begun with {key} = {before.get(key)!r}, not {facts.get(key)!r}; "
                    "remove it or choose another --output"
                )
            return
        root.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"folder '{root}' cannot be written: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"file '{path}' is not valid JSON: {error}") from error
