"""Measured tables as text: Markdown with mean and spread over seeds, beside reported figures where there are any."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.engine.table_definition import METRICS
from mmovseg.engine.table_grid import grid_metric, grid_run

SUMMARY_FIELDS = ("run", "label", "modality", "metric", "mean", "std", "seeds", "reported")

_Rows = Sequence[Mapping[str, str]]


def to_markdown(table: Mapping[str, Any], rows: _Rows) -> str:
    """Return the table with mean and sample standard deviation over seeds; "not run" where there is no row.

    Runs with figures under `reported` give a table that sets these beside the measured ones, with the means that the
    table asks for, and so do tables with metrics of their own; other tables end with the two controls. A grid gives its
    own tables alone.

    Args:
        table: from `read_table`.
        rows: from `read_rows`, or from `table_rows` if the table asks for single classes.
    """
    if table.get("grid"):
        parts = [_grid_table(table, part["title"], part["columns"], rows) for part in table["grid"]["tables"]]
        return "\n\n".join([*parts, f"*Reported*: {table['reported']}."] if table.get("reported") else parts)
    rows = _with_averages(table, rows)
    own_metrics = tuple(table.get("metrics", METRICS)) != METRICS
    if own_metrics or any("reported" in run for run in table["runs"]):
        return _beside_reported(table, rows)
    lines = [
        "| model | tested with | " + " | ".join(METRICS) + " | seeds |",
        "|---|---|" + "---:|" * (len(METRICS) + 1),
    ]
    for run in table["runs"]:
        for modality in run["evaluate"]:
            found = _rows_of(rows, run["name"], modality)
            cells = [mean_and_spread([float(row[name]) for row in found if row[name]]) for name in METRICS]
            lines.append(f"| {run['label']} | {modality} | " + " | ".join(cells) + f" | {len(found)} |")
    first = table["runs"][0]
    controls = _rows_of(rows, first["name"], first["evaluate"][0])
    cells = [mean_and_spread([float(row[f"permuted {name}"]) for row in controls]) for name in ("mIoU", "mIoU-unseen")]
    own, count = first["evaluate"][0], len(controls)
    lines.append(f"| control: {first['label']}, class names permuted | {own} | {cells[0]} | | {cells[1]} | | {count} |")
    constant = mean_and_spread([float(row["constant mIoU-unseen"]) for row in controls])
    lines.append(f"| control: best constant map | - | | | {constant} | | {len(controls)} |")
    return "\n".join(lines)


def write_summary(table: Mapping[str, Any], rows: _Rows, folder: str | Path) -> tuple[Path, Path]:
    """Write ``table.md`` and ``table.csv`` (one line a run, modality and metric) into a folder.

    In a folder that tables share, the files are called after the table.

    Returns:
        Paths of both files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    averaged = _with_averages(table, rows)
    stem = "table" if table.get("output", table["name"]) == table["name"] else str(table["name"])
    markdown, summary = folder / f"{stem}.md", folder / f"{stem}.csv"
    markdown.write_text(f"{table['title']}\n\n{to_markdown(table, rows)}\n", encoding="utf-8")
    with summary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SUMMARY_FIELDS)
        for run in table["runs"]:
            for modality in run["evaluate"]:
                for metric in (*table.get("metrics", METRICS), *table.get("averages", ())):
                    values = _values(averaged, run["name"], modality, metric)
                    digits = _digits(table, metric) + 1
                    mean = f"{statistics.mean(values):.{digits}f}" if values else ""
                    std = f"{statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
                    reported = run.get("reported", {}).get(metric, "")
                    writer.writerow([run["name"], run["label"], modality, metric, mean, std, len(values), reported])
    return markdown, summary


def _beside_reported(table: Mapping[str, Any], rows: _Rows) -> str:
    metrics = [*table.get("metrics", METRICS), *table.get("averages", ())]
    entries = [*table["runs"], *table.get("means", ())]
    reported_metrics = [name for name in metrics if any(name in entry.get("reported", {}) for entry in entries)]
    report = table.get("report", "segmentation")
    tested_with = report == "segmentation"  # what others read is said by the title
    head, rule = (["setting", "tested with"], ["---", "---"]) if tested_with else (["setting"], ["---"])
    if report == "encoder" and not table.get("loaders"):
        head = ["encoder"]
    for name in metrics:
        head += [name, "*reported*"] if name in reported_metrics else [name]
        rule += ["---:"] * (2 if name in reported_metrics else 1)
    lines = ["| " + " | ".join([*head, "seeds"]) + " |", "|" + "|".join([*rule, "---:"]) + "|"]

    def line(label: str, modality: str, measured: Sequence[str], reported: Mapping[str, float], seeds: str) -> str:
        cells = [label, modality] if tested_with else [label]
        for name, value in zip(metrics, measured, strict=True):
            cells.append(value)
            if name in reported_metrics:
                cells.append(f"*{reported[name]:.{_digits(table, name)}f}*" if name in reported else "")
        return "| " + " | ".join([*cells, seeds]) + " |"

    for run in table["runs"]:
        for modality in run["evaluate"]:
            found = _rows_of(rows, run["name"], modality)
            measured = [
                # A run may lack what others have: a dense model has no experts to share the tokens.
                "-" if found and not values else mean_and_spread(values, digits=_digits(table, name))
                for name in metrics
                for values in [_values(rows, run["name"], modality, name)]
            ]
            lines.append(line(run["label"], modality, measured, run.get("reported", {}), str(len(found))))
    for mean in table.get("means", ()):
        modality = mean.get("modality", "both")
        measured = [_mean_of_runs(rows, mean["runs"], modality, name, _digits(table, name)) for name in metrics]
        lines.append(line(mean["label"], modality, measured, mean.get("reported", {}), ""))
    text = "\n".join(lines)
    return text + (f"\n\n*Reported*: {table['reported']}." if table.get("reported") else "")


def _with_averages(table: Mapping[str, Any], rows: _Rows) -> _Rows:
    """Add the columns that are means of others to every row; empty where one of them is."""
    averaged = []
    for row in rows:
        row = dict(row)
        for name, metrics in table.get("averages", {}).items():
            values = [row.get(metric) for metric in metrics]
            row[name] = str(statistics.mean(map(float, values))) if all(values) else ""  # type: ignore[arg-type]
        averaged.append(row)
    return averaged


def _grid_table(table: Mapping[str, Any], title: str, columns: Sequence[str], rows: _Rows) -> str:
    """One table of a grid: under every measured row what is reported for it."""
    grid = table["grid"]
    metrics = [grid_metric(grid, column) for column in columns]
    digits = [_digits(table, metric) for metric in metrics]
    lines = [f"**{title}**", "", "| | " + " | ".join([*columns, "mean"]) + " |", "|---|" + "---:|" * (len(columns) + 1)]
    for row in grid["rows"]:
        if "config" in row:
            runs, modality = [grid_run(row["name"], column) for column in columns], row.get("evaluate", ["sar"])[0]
            measured = [_values(rows, run, modality, metric) for run, metric in zip(runs, metrics, strict=True)]
            cells = [mean_and_spread(values, digits=number) for values, number in zip(measured, digits, strict=True)]
            whole = statistics.mean(map(statistics.mean, measured)) if all(measured) else None
            cells.append("not run" if whole is None else f"{whole:.{digits[0]}f}")
            lines.append(f"| {row['label']} | " + " | ".join(cells) + " |")
        reported = [row.get("reported", {}).get(column) for column in columns]
        if any(value is not None for value in reported):
            cells = ["" if value is None else f"*{value:.{n}f}*" for value, n in zip(reported, digits, strict=True)]
            cells.append("" if None in reported else f"*{statistics.mean(reported):.{digits[0]}f}*")
            label = "*reported*" if "config" in row else f"*{row['label']}, reported*"
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _digits(table: Mapping[str, Any], metric: str) -> int:
    return int(table.get("decimals", {}).get(metric, 1))


def _mean_of_runs(rows: _Rows, runs: Sequence[str], modality: str, metric: str, digits: int) -> str:
    """Mean over runs of their means over seeds, only if every run is there: a mean of some says nothing of the rest."""
    values = [_values(rows, run, modality, metric) for run in runs]
    if not all(values):
        return "not run"
    return f"{statistics.mean(statistics.mean(value) for value in values):.{digits}f}"


def _rows_of(rows: _Rows, run: str, modality: str) -> list[Mapping[str, str]]:
    return [row for row in rows if row["run"] == run and row["modality"] == modality]


def _values(rows: _Rows, run: str, modality: str, metric: str) -> list[float]:
    return [float(row[metric]) for row in _rows_of(rows, run, modality) if row.get(metric)]


def mean_and_spread(values: Sequence[float], *, digits: int = 1) -> str:
    """Return mean and sample standard deviation as text, the value alone if it is the only one."""
    if not values:
        return "not run"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
