"""Tables of measured runs: train and evaluate what is missing, one CSV row an evaluation, Markdown from the CSV.

A table is a JSON file below ``configs/tables``: ``title``, ``seeds``, and ``runs`` with ``name``, ``label``,
``config``, ``evaluate`` (modalities; the first is the run's own). Optional for a run: ``overrides``; ``weights_of``, a
run whose weights it tests instead of training its own; ``checkpoint``, a file of the folder of given checkpoints, which
the run only evaluates; ``reported``, figures to set beside the measured ones. Optional for the table: ``reported``
(where those figures are from) and ``means`` (``label``, ``runs``, ``reported``). Rows are appended as they finish, so
that a stopped table goes on where it was.
`peak_memory_mb` is that of the process so far: with several runs in one process, an upper bound for the later ones.
"""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.checkpoint.load import read_metadata
from mmovseg.engine.cli import train_main
from mmovseg.engine.hooks import FINAL_FILE
from mmovseg.engine.launch import choose_device
from mmovseg.engine.log import peak_memory_mb
from mmovseg.engine.table_text import METRICS, mean_and_spread, to_markdown, write_summary
from mmovseg.errors import UserError

__all__ = [
    "FIELDS", "METRICS", "append_row", "fill_table", "mean_and_spread", "read_rows", "read_table", "to_markdown",
    "write_summary",
]  # fmt: skip

FIELDS = (
    "table", "run", "seed", "modality", *METRICS, "permuted mIoU", "permuted mIoU-unseen", "constant mIoU-unseen",
    "config", "config_sha256", "data", "images", "iterations", "train_seconds", "peak_memory_mb", "commit",
    "weights_sha256", "machine",
)  # fmt: skip


def read_table(path: str | Path) -> dict[str, Any]:
    """Read a table's definition. Raises `UserError` when it is missing, lacks a key, or names an unknown run."""
    path = Path(path)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        table = {"name": path.stem, "title": content["title"]}
        table |= {key: list(content[key]) for key in ("seeds", "runs")}
        table |= {"means": list(content.get("means", ())), "reported": str(content.get("reported", ""))}
        names = [run["name"] for run in table["runs"]]
        named = [run["weights_of"] for run in table["runs"] if "weights_of" in run]
        named += [name for mean in table["means"] for name in mean["runs"]]
    except OSError as error:
        raise UserError(f"table '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"table '{path}' needs JSON with title, seeds and runs: {error}") from error
    unknown = sorted(set(named) - set(names))
    if unknown:
        raise UserError(f"table '{path}' has no run '{unknown[0]}'; it has: {', '.join(names)}")
    return table


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Return the rows measured so far, none when the file does not exist."""
    path = Path(path)
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill_table(
    table: Mapping[str, Any],
    results: str | Path,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
    checkpoints: str | Path | None = None,
    skip: Callable[[str, str], None] | None = None,
) -> list[dict[str, str]]:
    """Run what the CSV does not hold yet and return all rows.

    Args:
        table: from `read_table`.
        results: CSV to append to.
        output: folder for the runs.
        overrides: ``key=value`` for every run.
        only: names of the runs to measure, None = all.
        checkpoints: folder of given weights, ``<run>.safetensors`` or what the run says under `checkpoint`: nothing is
            trained then, and a run whose file is not there stays unmeasured.
        skip: called with name and reason of a run that cannot be done, and the table goes on; None stops it.

    Raises:
        UserError: `only` names a run that the table does not have, the folder has no checkpoint of the table, the table
            needs such a folder and has none, or a run cannot be done.
    """
    names = [run["name"] for run in table["runs"]]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise UserError(f"table '{table['name']}' has no run '{unknown[0]}'; it has: {', '.join(names)}")
    known = {(row["run"], row["seed"], row["modality"]) for row in read_rows(results)}
    chosen = [run for run in table["runs"] if only is None or run["name"] in only]
    if checkpoints is not None:
        chosen = _with_checkpoint(chosen, Path(checkpoints), skip)
    for seed in table["seeds"]:
        for run in chosen:
            missing = [name for name in run["evaluate"] if (run["name"], str(seed), name) not in known]
            if not missing:
                continue
            common = [*run.get("overrides", ()), *overrides]
            try:
                weights = _weights(table, run, seed, Path(output), overrides, checkpoints)
                _measure(table["name"], run, seed, missing, Path(results), Path(output), common, weights)
            except UserError as error:
                if skip is None:
                    raise
                skip(run["name"], str(error))
    return read_rows(results)


def _with_checkpoint(
    runs: Sequence[Mapping[str, Any]], folder: Path, skip: Callable[[str, str], None] | None
) -> list[Mapping[str, Any]]:
    missing = {run["name"]: file for run in runs if not (file := _given_file(run, folder)).is_file()}
    if runs and len(missing) == len(runs):
        raise UserError(
            f"folder '{folder}' has no checkpoint of this table, for example '{_given_file(runs[0], folder)}'"
        )
    for name, file in missing.items():
        if skip is not None:
            skip(name, f"checkpoint '{file}' does not exist")
    return [run for run in runs if run["name"] not in missing]


def _given_file(run: Mapping[str, Any], folder: Path) -> Path:
    return folder / str(run.get("checkpoint", f"{run['name']}.safetensors"))


def _weights(
    table: Mapping[str, Any],
    run: Mapping[str, Any],
    seed: int,
    output: Path,
    overrides: Sequence[str],
    checkpoints: str | Path | None,
) -> dict[str, Any]:
    """Return checkpoint, iterations and training seconds (None = not trained now): given, shared or trained."""
    if checkpoints is not None:
        return _existing(_given_file(run, Path(checkpoints)))
    if "checkpoint" in run:
        raise UserError(f"run '{run['name']}' evaluates a given checkpoint; name the folder of '{run['checkpoint']}'")
    if "weights_of" in run:
        run = next(other for other in table["runs"] if other["name"] == run["weights_of"])
        finished = _run_folder(output, run, seed) / FINAL_FILE
        if finished.is_file():
            return _existing(finished)
    settings = [*run.get("overrides", ()), *overrides, *_settings(_run_folder(output, run, seed), seed)]
    return train_main(["--config-file", run["config"], *settings])


def _existing(file: Path) -> dict[str, Any]:
    return {"checkpoint": str(file), "iteration": read_metadata(file).get("iteration", ""), "seconds": None}


def _run_folder(output: Path, run: Mapping[str, Any], seed: int) -> Path:
    return output / f"{run['name']}-seed{seed}"


def _settings(folder: Path, seed: int) -> list[str]:
    return [f"train.seed={seed}", f"train.output_dir={folder}", "train.eval_period=-1", "train.tensorboard=false"]


def _measure(
    table: str,
    run: Mapping[str, Any],
    seed: int,
    modalities: Iterable[str],
    results: Path,
    output: Path,
    overrides: Sequence[str],
    weights: Mapping[str, Any],
) -> None:
    folder = _run_folder(output, run, seed)
    for modality in modalities:
        argv = ["--config-file", run["config"], *overrides, *_settings(folder, seed)]
        train_main([*argv, "--eval-only", "--modality", modality, f"train.init_checkpoint={weights['checkpoint']}"])
        for file in sorted(folder.glob(f"eval/*/{modality}-*/result.json")):
            report = json.loads(file.read_text(encoding="utf-8"))
            append_row(results, _row(table, run, seed, modality, report, weights))


def _row(
    table: str, run: Mapping[str, Any], seed: int, modality: str, report: Mapping[str, Any], trained: Mapping[str, Any]
) -> dict[str, Any]:
    facts = report["provenance"]
    constant = (report["constant_baseline"].get("mIoU-unseen") or {}).get("value")
    return {
        "table": table,
        "run": run["name"],
        "seed": seed,
        "modality": modality,
        **{name: _percent(report[name]) for name in METRICS},
        "permuted mIoU": _percent(report["permuted"]["mIoU"]),
        "permuted mIoU-unseen": _percent(report["permuted"]["mIoU-unseen"]),
        "constant mIoU-unseen": _percent(constant),
        "config": run["config"],
        "config_sha256": str(facts.get("config_sha256") or "")[:12],
        "data": report["dataset"],
        "images": facts.get("images"),
        "iterations": trained["iteration"],
        "train_seconds": "" if trained["seconds"] is None else round(trained["seconds"]),
        "peak_memory_mb": round(peak_memory_mb(choose_device("auto"))),
        "commit": str(facts.get("git_commit") or "")[:12],
        "weights_sha256": str(facts.get("checkpoint_sha256") or "")[:12],
        "machine": f"{platform.machine()}, {facts.get('device', 'cpu')}",
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def append_row(path: str | Path, row: Mapping[str, Any], fields: Sequence[str] = FIELDS) -> None:
    """Add one row to a CSV, which is made with a header of `fields` if it does not exist."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)
