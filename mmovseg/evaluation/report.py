"""An evaluation as files (JSON, CSV, PNG) and as a table on the terminal."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from mmovseg.checkpoint.save import atomic_write
from mmovseg.data.sample import EvaluationModality
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.evaluation.metrics import HEADLINE
from mmovseg.visualization.confusion import draw_confusion


def result_folder(
    output_dir: str | Path, dataset_name: str, modality: EvaluationModality, vocabulary_name: str
) -> Path:
    """Return `<output_dir>/eval/<dataset>/<modality>-<vocabulary>`, with names made safe for a file system.

    `vocabulary_name` is that of `result_name`.
    """
    return Path(output_dir) / "eval" / safe_name(dataset_name) / f"{modality}-{safe_name(vocabulary_name)}"


def write_report(report: dict[str, Any], folder: str | Path) -> None:
    """Write `result.json`, `per_class.csv` and `confusion.png` of an `OVSegEvaluator` report, each as a whole."""
    folder = Path(folder)
    write_text(folder / "per_class.csv", per_class_csv(report))
    confusion = report["confusion"]
    draw_confusion(
        np.asarray(confusion["counts"]),
        folder / "confusion.png",
        row_names=confusion["rows_truth"],
        column_names=confusion["columns_predicted"],
        unseen={row["name"] for row in report["per_class"] if not row["seen"]},
        title=f"{report['dataset']}, {report['modality']}, mIoU {format_percent(report['mIoU'])}",
    )
    # last, so that a result.json says that the other two are there
    write_text(folder / "result.json", json.dumps(report, indent=1, allow_nan=False, default=str) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text so that a reader never sees half of it."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def per_class_csv(report: dict[str, Any]) -> str:
    """Return the per-class table as CSV text, percentages with 4 decimals, empty where undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["class", "seen", "IoU", "accuracy", "pixels", "predicted_pixels"]
    writer.writerow(header)
    for row in report["per_class"]:
        shares = ["" if row[key] is None else f"{row[key]:.4f}" for key in ("IoU", "accuracy")]
        writer.writerow([row["name"], int(row["seen"]), *shares, row["pixels"], row["predicted_pixels"]])
    return text.getvalue()


def format_table(report: dict[str, Any]) -> str:
    """Return the report as text: headline metrics, controls and cloud cover, classes."""
    controls = report["constant_baseline"]
    constant = {key: (controls.get(key) or {}).get("value") for key in HEADLINE}
    rows: list[list[str]] = [["model", *_cells(report)], ["names permuted", *_cells(report["permuted"])]]
    rows.append(["best constant", *_cells(constant)])
    for part in report["by_cloud_cover"]:
        label = f"cloud cover {part['from']:.2f}-{part['to']:.2f} ({part['images']} images)"
        rows.append([label, *_cells(part)])
    lines = [text_table(rows, ["", *HEADLINE], text_columns=1)]
    classes = [
        [row["name"], "seen" if row["seen"] else "unseen"]
        + [format_percent(row["IoU"]), format_percent(row["accuracy"]), str(row["pixels"])]
        for row in report["per_class"]
    ]
    lines.append(text_table(classes, ["class", "", "IoU", "accuracy", "pixels"], text_columns=2))
    if report["not_asked"]:
        lines.append(f"not asked for, left out: {', '.join(report['not_asked'])}")
    if report["not_in_labels"]:
        lines.append(f"asked for but not in the labels, counted as wrong: {', '.join(report['not_in_labels'])}")
    return "\n\n".join(lines)


def text_table(rows: list[list[str]], headers: list[str], *, text_columns: int) -> str:
    """Return an aligned table: the first `text_columns` columns to the left, the others, numbers, to the right."""
    align = ["left"] * text_columns + ["right"] * (len(headers) - text_columns)
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=align)


def format_percent(value: float | None) -> str:
    """Return a percentage with one decimal, `-` for None."""
    return "-" if value is None else f"{value:.1f}"


def _cells(metrics: dict[str, Any]) -> list[str]:
    return [format_percent(metrics.get(key)) for key in HEADLINE]


def result_name(vocabulary: Vocabulary) -> str:
    """Return what folders of results call a vocabulary: its name; for free class lists, all "custom", a hash too."""
    name = vocabulary.name
    return f"{name}-{vocabulary.sha256[:8]}" if name == "custom" else name


def safe_name(name: str) -> str:
    """Return a name with everything replaced that could not be one folder's name; letters of all scripts stay.

    A hash is added where characters outside ASCII had to go, such as pictograms: often they were all of the name.
    """
    name = unicodedata.normalize("NFC", name)
    safe = re.sub(r"[^\w.-]+", "_", name).strip(".") or "unnamed"
    if all(char.isascii() for char in re.findall(r"[^\w.-]", name)):
        return safe
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
