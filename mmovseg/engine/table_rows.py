"""Rows of measured tables: one CSV line an evaluation, and one a class in a CSV beside it."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.engine.launch import choose_device
from mmovseg.engine.log import peak_memory_mb
from mmovseg.engine.table_definition import CLASS_METRIC, METRICS
from mmovseg.errors import UserError

_KEY = ("table", "run", "seed", "modality")
_FACTS = (
    "config", "config_sha256", "data", "images", "iterations", "train_seconds", "peak_memory_mb", "commit",
    "weights_sha256", "machine",
)  # fmt: skip
# Newer than the first results, whose files go on without them.
SETUP = "setup_sha256"
_LATER = ("parts", "part_iterations", "part_seconds", SETUP)
FIELDS = (*_KEY, *METRICS, "permuted mIoU", "permuted mIoU-unseen", "constant mIoU-unseen", *_FACTS, *_LATER)
CLASS_FIELDS = (*_KEY, "dataset", "class", "seen", "IoU")


def fields_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of a table's CSV: those of segmentation, or the metrics that another table names."""
    own = table.get("report", "segmentation") != "segmentation" or table.get("loaders")
    return (*_KEY, *table["metrics"], *_FACTS, *_LATER) if own else FIELDS


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Return the rows measured so far, none when the file does not exist."""
    path = Path(path)
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(path: str | Path, row: Mapping[str, Any], fields: Sequence[str] = FIELDS) -> None:
    """Add one row to a CSV; see `append_rows`."""
    append_rows(path, [row], fields)


def append_rows(path: str | Path, rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> None:
    """Add rows to a CSV, which is made with a header of `fields` if it does not exist.

    Raises:
        UserError: the file has other columns; only those that came later than the first results may be missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = read_header(path)
    for column in header or ():
        if column not in fields:
            raise UserError(f"'{path}' has a column '{column}' that these results lack; name another file")
    for column in fields if header else ():
        if column not in header and column not in _LATER:
            raise UserError(f"'{path}' has no column '{column}', which these results have; name another file")
    text = io.StringIO()
    writer = csv.DictWriter(text, header or fields, lineterminator="\n", extrasaction="ignore")
    if not header:
        writer.writeheader()
    writer.writerows(rows)
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(text.getvalue())  # at once: two processes may measure different seeds of one table


def read_header(path: str | Path) -> list[str]:
    """Return the columns of a CSV, none when the file does not exist."""
    path = Path(path)
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def segmentation_row(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of an `OVSegEvaluator` report."""
    constant = (report["constant_baseline"].get("mIoU-unseen") or {}).get("value")
    return {
        **{name: _percent(report[name]) for name in METRICS},
        "permuted mIoU": _percent(report["permuted"]["mIoU"]),
        "permuted mIoU-unseen": _percent(report["permuted"]["mIoU-unseen"]),
        "constant mIoU-unseen": _percent(constant),
    }


def encoder_row(report: Mapping[str, Any], metrics: Sequence[str], source: str | Path) -> dict[str, Any]:
    """Return the named figures of a report that has them under ``metrics``: of an encoder, a classifier, a detector.

    Those of segmentation are found where `OVSegEvaluator` has them, too.

    Raises:
        UserError: the report lacks one of them.
    """
    found = {name: report[name] for name in METRICS if name in report}
    found |= {f"{CLASS_METRIC}{entry['name']}": entry["IoU"] for entry in report.get("per_class", ()) if found}
    found |= report.get("metrics", {})
    for name in metrics:
        if name not in found:
            raise UserError(f"report '{source}' has no metric '{name}'; it has: {', '.join(found)}")
    return {name: "" if found[name] is None else f"{found[name]:.4f}" for name in metrics}


def loaders_row(
    reports: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], files: Mapping[str, str | Path]
) -> dict[str, Any]:
    """Return the figures ``<loader> <metric>`` of the reports of several test loaders.

    Args:
        reports: by loader, as for `encoder_row`.
        metrics: to return, each with its loader in front.
        files: by loader, for messages.

    Raises:
        UserError: a report lacks one of them.
    """
    row: dict[str, Any] = {}
    for name in metrics:
        loader, metric = name.split(" ", 1)
        row[name] = encoder_row(reports[loader], [metric], files[loader])[metric]
    return row


def facts_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report and this process say of where a row is from."""
    facts = report["provenance"]
    return {
        "config_sha256": str(facts.get("config_sha256") or "")[:12],
        "data": report["dataset"],
        "images": facts.get("images"),
        "peak_memory_mb": round(peak_memory_mb(choose_device("auto"))),
        "commit": str(facts.get("git_commit") or "")[:12],
        "weights_sha256": str(facts.get("checkpoint_sha256") or "")[:12],
        "machine": f"{platform.machine()}, {facts.get('device', 'cpu')}",
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def classes_file(results: str | Path) -> Path:
    """Return where the IoU of single classes is kept beside a CSV: ``results/x.csv`` -> ``results/x_classes.csv``."""
    results = Path(results)
    return results.with_name(f"{results.stem}_classes.csv")


def append_classes(path: str | Path, row: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Add the IoU of every class of a segmentation report, empty where a class has no pixel.

    Args:
        path: from `classes_file`.
        row: of the evaluation, with `table`, `run`, `seed`, `modality`.
        report: of the same evaluation.
    """
    key = {name: row[name] for name in _KEY}
    rows = [
        {
            **key,
            "dataset": report["dataset"],
            "class": entry["name"],
            "seen": int(entry["seen"]),
            "IoU": _percent(entry["IoU"]),
        }
        for entry in report.get("per_class", ())
    ]
    if rows:
        append_rows(path, rows, CLASS_FIELDS)


def read_classes(path: str | Path) -> list[dict[str, str]]:
    """Return the rows of single classes; of a class measured twice (a sitting was stopped in between) the later one.

    Raises:
        UserError: the file holds something else.
    """
    header = read_header(path)
    if header and header != list(CLASS_FIELDS):
        raise UserError(f"'{path}' does not hold the IoU of classes: its columns are not {', '.join(CLASS_FIELDS)}")
    latest = {
        tuple(row[name] for name in ("run", "seed", "modality", "dataset", "class")): row for row in read_rows(path)
    }
    return list(latest.values())


def with_classes(rows: Iterable[Mapping[str, str]], classes: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the rows with a further column ``IoU-<class>`` for every class measured in the same evaluation."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in classes:
        key = (row["run"], row["seed"], row["modality"], row["dataset"])
        found.setdefault(key, {})[f"{CLASS_METRIC}{row['class']}"] = row["IoU"]
    return [{**row, **found.get((row["run"], row["seed"], row["modality"], row["data"]), {})} for row in rows]
