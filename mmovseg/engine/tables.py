"""Tables of measured runs: train and evaluate what is missing, one CSV row an evaluation, Markdown from the CSV.

A table is a JSON file below ``configs/tables``: ``title``, ``seeds``, and ``runs`` with ``name``, ``label``,
``config``, ``evaluate`` (modalities; the first is the run's own) and optional ``overrides``. Rows are appended as they
finish, so that a stopped table goes on where it was.
`peak_memory_mb` is that of the process so far: with several runs in one process, an upper bound for the later ones.
"""

from __future__ import annotations

import csv
import json
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.engine.cli import train_main
from mmovseg.engine.launch import choose_device
from mmovseg.engine.log import peak_memory_mb
from mmovseg.errors import UserError

METRICS = ("mIoU", "mIoU-seen", "mIoU-unseen", "hIoU")
FIELDS = (
    "table", "run", "seed", "modality", *METRICS, "permuted mIoU", "permuted mIoU-unseen", "constant mIoU-unseen",
    "config", "config_sha256", "data", "images", "iterations", "train_seconds", "peak_memory_mb", "commit",
    "weights_sha256", "machine",
)  # fmt: skip


def read_table(path: str | Path) -> dict[str, Any]:
    """Read a table's definition. Raises `UserError` when it is missing or lacks a key."""
    path = Path(path)
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"name": path.stem, "title": table["title"], "seeds": list(table["seeds"]), "runs": list(table["runs"])}
    except OSError as error:
        raise UserError(f"table '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"table '{path}' needs JSON with title, seeds and runs: {error}") from error


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
) -> list[dict[str, str]]:
    """Run what the CSV does not hold yet and return all rows.

    Args:
        table: from `read_table`.
        results: CSV to append to.
        output: folder for the runs.
        overrides: ``key=value`` for every run.
        only: names of the runs to measure, None = all.

    Raises:
        UserError: `only` names a run that the table does not have.
    """
    names = [run["name"] for run in table["runs"]]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise UserError(f"table '{table['name']}' has no run '{unknown[0]}'; it has: {', '.join(names)}")
    known = {(row["run"], row["seed"], row["modality"]) for row in read_rows(results)}
    for seed in table["seeds"]:
        for run in (run for run in table["runs"] if only is None or run["name"] in only):
            missing = [name for name in run["evaluate"] if (run["name"], str(seed), name) not in known]
            if missing:
                _measure(table["name"], run, seed, missing, Path(results), Path(output), overrides)
    return read_rows(results)


def _measure(
    table: str,
    run: Mapping[str, Any],
    seed: int,
    modalities: Iterable[str],
    results: Path,
    output: Path,
    overrides: Sequence[str],
) -> None:
    folder = output / f"{run['name']}-seed{seed}"
    common = ["--config-file", run["config"], *run.get("overrides", ()), *overrides]
    settings = [f"train.seed={seed}", f"train.output_dir={folder}", "train.eval_period=-1", "train.tensorboard=false"]
    trained = train_main([*common, *settings])
    for modality in modalities:
        argv = [*common, *settings, "--eval-only", "--modality", modality]
        train_main([*argv, f"train.init_checkpoint={trained['checkpoint']}"])
        for file in sorted(folder.glob(f"eval/*/{modality}-*/result.json")):
            report = json.loads(file.read_text(encoding="utf-8"))
            append_row(results, _row(table, run, seed, modality, report, trained))


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
        "train_seconds": round(trained["seconds"]),
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


def to_markdown(table: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> str:
    """Return the table with mean and sample standard deviation over seeds; "not run" where there is no row."""
    lines = [
        "| model | tested with | " + " | ".join(METRICS) + " | seeds |",
        "|---|---|" + "---:|" * (len(METRICS) + 1),
    ]
    for run in table["runs"]:
        for modality in run["evaluate"]:
            found = [row for row in rows if row["run"] == run["name"] and row["modality"] == modality]
            cells = [mean_and_spread([float(row[name]) for row in found if row[name]]) for name in METRICS]
            lines.append(f"| {run['label']} | {modality} | " + " | ".join(cells) + f" | {len(found)} |")
    first = table["runs"][0]
    controls = [row for row in rows if row["run"] == first["name"] and row["modality"] == first["evaluate"][0]]
    cells = [mean_and_spread([float(row[f"permuted {name}"]) for row in controls]) for name in ("mIoU", "mIoU-unseen")]
    own, count = first["evaluate"][0], len(controls)
    lines.append(f"| control: {first['label']}, class names permuted | {own} | {cells[0]} | | {cells[1]} | | {count} |")
    constant = mean_and_spread([float(row["constant mIoU-unseen"]) for row in controls])
    lines.append(f"| control: best constant map | - | | | {constant} | | {len(controls)} |")
    return "\n".join(lines)


def mean_and_spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation as text, the value alone if it is the only one."""
    if not values:
        return "not run"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
