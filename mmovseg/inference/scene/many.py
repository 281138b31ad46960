"""Map many scenes: each by one process, in the order of their size; a scene that fails does not stop the others."""

from __future__ import annotations

import csv
import io
import json
import os
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
from detectron2.utils import comm
from rasterio.errors import RasterioError

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError, one_line
from mmovseg.evaluation.report import text_table, write_text
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene import processes
from mmovseg.inference.scene.disk import check_target
from mmovseg.inference.scene.failures import plain_errors
from mmovseg.inference.scene.lists import SceneJob, summary_files
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.outputs import output_files
from mmovseg.inference.scene.run import check_prompts, predict_scene

_COLUMNS = ("scene", "status", "output", "seconds")


def predict_scenes(
    predictor: Predictor,
    jobs: Sequence[SceneJob],
    prompts: str | Sequence[str] | Vocabulary,
    *,
    options: SceneOptions | None = None,
) -> dict[str, Any]:
    """Map every scene of a list as `predict_scene` does.

    In a process group the scenes are dealt out by size, each to one process; the maps are those of one process. A map
    that is there already, made from the same rasters with the same options, is left as it is, so the same call goes on
    after an interruption. ``summary.json`` and ``summary.csv`` are written into the folder that holds all maps.

    Args:
        predictor: the model.
        jobs: from `read_jobs`.
        prompts: the same classes for all scenes.
        options: the same for all scenes, but for `polygons`, which name one file.

    Returns:
        In every process: ``scenes`` (in the order of `jobs`: name, status ``mapped``, ``there`` or ``failed``, output,
        seconds, hectares by class, error), their count by status, and ``files``. With `dry_run` the status is
        ``planned``, with the estimates, and nothing is written.

    Raises:
        UserError: options or prompts fit no scene at all, or one file would be written twice, over a raster of the
            list, or over somebody else's summary. What is wrong with one scene is its ``error``.
    """
    options = options or SceneOptions()
    if options.polygons is not None:
        raise UserError(f"polygons go to one file, so '{options.polygons}' cannot be asked for many scenes at once")
    if not jobs:
        raise UserError("there are no scenes to map")
    check_prompts(predictor, prompts)
    _check_files(jobs, options)
    mine = deal([_pixels(job) for job in jobs], comm.get_world_size())[comm.get_rank()]
    results = {}
    for count, number in enumerate(mine, start=1):
        results[number] = _map_one(predictor, jobs[number], prompts, options)
        if options.show_progress:
            print(_line(results[number], count, len(mine)), flush=True)
    gathered = processes.gather(results)
    scenes = [scene for _, scene in sorted({k: v for part in gathered for k, v in part.items()}.items())]
    summary = _summarise(scenes, jobs, options)
    if comm.is_main_process() and not options.dry_run:
        _write(summary)
    if comm.is_main_process() and options.show_progress:
        print(describe(summary), flush=True)
    return summary


def _check_files(jobs: Sequence[SceneJob], options: SceneOptions) -> None:
    """Refuse what `predict_scene` cannot see, since it knows one scene only."""
    writers: dict[str, tuple[int, str]] = {}
    for path in summary_files(jobs):
        check_target(path)
        if path.exists() and not options.overwrite and not _is_summary(path):
            raise UserError(
                f"'{path}' is where the summary goes, and it holds something else; give --overwrite, or another "
                "--output-dir"
            )
        writers[os.path.realpath(path)] = (-1, "the summary of all")
    for number, job in enumerate(jobs):
        for path in output_files(job.output, options, clouds=job.inputs.cloud_mask is not None).values():
            first, other = writers.setdefault(os.path.realpath(path), (number, f"scene '{job.name}'"))
            if first != number:
                raise UserError(f"'{path}' would be written by {other} and by scene '{job.name}'; give it another name")
    for job in jobs:
        for raster in (job.inputs.optical, job.inputs.sar, job.inputs.cloud_mask):
            if raster is not None and os.path.realpath(raster) in writers:
                _, writer = writers[os.path.realpath(raster)]
                raise UserError(f"'{raster}' of scene '{job.name}' is an input and would be written over by {writer}")


def _is_summary(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else None
    except (OSError, ValueError, RecursionError):
        return False
    if path.suffix == ".csv":
        return text.startswith(",".join(_COLUMNS))
    return isinstance(content, dict) and {"scenes", "files"} <= set(content)


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Share out work: the largest piece first, each to the hand that holds least.

    Returns:
        Indices of `sizes` for each hand, in ascending order; together each index once.
    """
    dealt: list[list[int]] = [[] for _ in range(hands)]
    load = [0] * hands
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        hand = load.index(min(load))
        dealt[hand].append(index)
        load[hand] += max(sizes[index], 1)
    return [sorted(indices) for indices in dealt]


def _pixels(job: SceneJob) -> int:
    """Return the size of a map, 0 where the raster cannot be opened (which is then said when its turn comes)."""
    path = job.inputs.optical or job.inputs.sar
    if path is None or not ("://" in path or path.startswith("/vsi") or os.path.isfile(path)):
        return 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path) as raster:
                return int(raster.height * raster.width)
    except (RasterioError, OSError, ValueError):
        return 0


def _map_one(
    predictor: Predictor, job: SceneJob, prompts: str | Sequence[str] | Vocabulary, options: SceneOptions
) -> dict[str, Any]:
    """Map a scene and say how it went; nothing but an interruption by the user comes through."""
    result: dict[str, Any] = {"name": job.name, "status": "failed", "output": str(job.output)}
    before, started = _stamp(job.output), time.perf_counter()
    try:
        with processes.alone(), plain_errors():
            quiet = replace(options, show_progress=False)
            report = predict_scene(predictor, job.inputs, prompts, job.output, options=quiet)
    except UserError as error:
        result["error"] = one_line(error)
    except Exception as error:  # a mistake of ours with this scene: the others still have their turn
        result["error"] = f"unexpected {type(error).__name__}: {one_line(error)}"
        result["traceback"] = traceback.format_exc()
    else:
        if options.dry_run:
            result |= {"status": "planned", "plan": report["plan"], "estimate": report["estimate"]}
        else:
            result["status"] = "there" if before is not None and _stamp(job.output) == before else "mapped"
            result["hectares"] = {name: row["hectares"] for name, row in report["classes"].items()}
            result["warnings"] = list(report["facts"].get("warnings", []))
    result["seconds"] = round(time.perf_counter() - started, 2)
    return result


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _line(scene: Mapping[str, Any], count: int, total: int) -> str:
    """Return what is printed when a scene is done."""
    number = f"[{count}/{total}]" if comm.get_world_size() == 1 else f"[process {comm.get_rank()}: {count}/{total}]"
    text = f"{number} {scene['name']}: "
    if scene["status"] == "failed":
        return text + f"failed: {scene['error']}"
    if scene["status"] == "planned":
        estimate = scene["estimate"]
        return text + f"about {estimate['seconds']:.0f} s and {estimate['memory_mib']:.0f} MiB"
    if scene["status"] == "there":
        return text + "there already, made from the same rasters with the same options"
    return "\n".join([text + f"{scene['seconds']:.1f} s", *(f"  note: {note}" for note in scene["warnings"])])


def _summarise(scenes: list[dict[str, Any]], jobs: Sequence[SceneJob], options: SceneOptions) -> dict[str, Any]:
    statuses = ("planned", "failed") if options.dry_run else ("mapped", "there", "failed")
    counts = {status: sum(scene["status"] == status for scene in scenes) for status in statuses}
    files = [] if options.dry_run else [str(path) for path in summary_files(jobs)]
    return {**counts, "scenes": scenes, "files": files}


def _write(summary: Mapping[str, Any]) -> None:
    """Write the summary; its place was looked at in the beginning."""
    json_path, csv_path = summary["files"]
    try:
        write_text(json_path, json.dumps(summary, indent=1, allow_nan=False) + "\n")
        write_text(csv_path, summary_csv(summary))
    except OSError as error:
        raise UserError(f"the summary '{json_path}' cannot be written: {error.strerror}") from error


def summary_csv(summary: Mapping[str, Any]) -> str:
    """Return one line a scene: name, status, output, seconds, hectares of each class, error."""
    classes = list(dict.fromkeys(name for scene in summary["scenes"] for name in scene.get("hectares", {})))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"{name} (ha)" for name in classes), "error"])
    for scene in summary["scenes"]:
        areas = [scene.get("hectares", {}).get(name) for name in classes]
        cells = ["" if area is None else f"{area:.4f}" for area in areas]
        facts = [scene[key] for key in ("name", "status", "output", "seconds")]
        writer.writerow([*facts, *cells, scene.get("error", "")])
    return text.getvalue()


def describe(summary: Mapping[str, Any]) -> str:
    """Return the end of a run for people: a table of the scenes and, once more, what failed and why."""
    scenes = summary["scenes"]
    rows = [[scene["name"], scene["status"], f"{scene['seconds']:.1f}"] for scene in scenes]
    lines = [text_table(rows, ["scene", "status", "seconds"], text_columns=2)]
    lines += [f"failed: {scene['name']}: {scene['error']}" for scene in scenes if scene["status"] == "failed"]
    counts = [f"{count} {status}" for status, count in summary.items() if isinstance(count, int)]
    lines.append(f"{len(scenes)} scenes: {', '.join(counts)}")
    if summary["files"]:
        lines.append(f"wrote {', '.join(summary['files'])}")
    return "\n".join(lines)
