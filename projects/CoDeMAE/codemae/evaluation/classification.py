"""Classification of whole images, evaluated: last and best apart, with everything that a figure needs beside it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from omegaconf import OmegaConf

from mmovseg.data.sample import EvaluationModality, ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions, source_commit
from mmovseg.evaluation.report import format_percent, safe_name, text_table, write_text
from mmovseg.projects.codemae.evaluation.classification_metrics import (
    DEFINITION,
    accuracy_metrics,
    precision_metrics,
)
from mmovseg.visualization.confusion import draw_confusion

logger = logging.getLogger(__name__)


class ClassificationEvaluator(DatasetEvaluator):
    """Compare class scores with labels: accuracies for one class an image, average precision for several.

    During training it also keeps what every evaluation said (`history.json`), from which the best one is told apart
    from the last. A later ``--eval-only`` of the final weights of that training, in its output folder, finds it again.

    Every process evaluates its share and must call `evaluate`; `report` then holds, on the main process, what
    `result.json` says. Kept are the scores: 4 bytes an image and class.

    Args:
        dataset_name: used in the result folder and in the report.
        classes: names; position = label.
        multi_label: whether an image can be of several classes.
        modality: what the model sees, written down; ``shuffled-sar`` has a folder of its own.
        loader: name of the test loader where a config has several; goes into the report and the folder's name. The
            engine fills it in.
        output_dir: the run's output folder; None writes no files.
        provenance: facts to record. During training `iteration` among them says how many steps were done.

    Raises:
        UserError: no class.
    """

    def __init__(
        self,
        *,
        dataset_name: str,
        classes: Sequence[str],
        multi_label: bool = False,
        modality: EvaluationModality = "both",
        loader: str | None = None,
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        if not classes:
            raise UserError(f"the evaluation of '{dataset_name}' needs at least one class")
        self.dataset_name, self.classes, self.multi_label = dataset_name, list(classes), multi_label
        self.modality, self.loader, self.output_dir = modality, loader, output_dir
        plain: Any = OmegaConf.to_container(provenance) if OmegaConf.is_config(provenance) else provenance
        self.provenance: dict[str, Any] = dict(plain or {})
        self.headline = "micro AP" if multi_label else "OA"
        self.report: dict[str, Any] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._digests: list[str] = []
        self._started = time.perf_counter()

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        """Keep a batch.

        Args:
            inputs: with `label`.
            outputs: with `class_scores` (K,).

        Raises:
            UserError: a label is missing or does not fit the classes, or the model classifies nothing.
            ValueError: a score is not finite.
        """
        count = len(self.classes)
        for item, output in zip(inputs, outputs, strict=True):
            name = str(item.get("file_name", item.get("image_id", "?")))
            if "class_scores" not in output:
                raise UserError(
                    f"evaluation needs 'class_scores' of a model; this one answers with: {', '.join(output)}"
                )
            if "label" not in item:
                raise UserError(f"'{name}' has no label to evaluate against")
            scores, label = output["class_scores"].detach().float().cpu().numpy(), item["label"].cpu().numpy()
            fits = label.shape == (count,) if self.multi_label else label.ndim == 0 and 0 <= int(label) < count
            if not fits:
                raise UserError(f"label of '{name}' is {label.tolist()}, which does not fit {count} classes")
            if scores.shape != (count,):
                raise UserError(f"the model gives {scores.size} scores for {count} classes of '{self.dataset_name}'")
            if not np.isfinite(scores).all():
                raise ValueError(f"'{name}': the model's scores hold a value that is not finite")
            self._scores.append(scores)
            self._labels.append(label)
            self._digests.append(hashlib.sha256(f"{item.get('image_id', name)} {label.tolist()}".encode()).hexdigest())

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Join the processes, compare with earlier evaluations, write the result, return the metrics.

        Returns:
            ``{"classification": metrics}`` in percent on the main process, None on the others; a metric without a value
            is NaN here (None in the report).

        Raises:
            UserError: the loader gave no image.
        """
        gathered = comm.all_gather((self._scores, self._labels, self._digests))
        scores, labels, digests = ([value for share in gathered for value in share[part]] for part in range(3))
        if not scores:
            raise UserError(f"the test loader of '{self.dataset_name}' gave no image")
        if not comm.is_main_process():
            return None
        self.report = self._build_report(np.stack(scores), np.stack(labels), digests)
        logger.info("%s:\n%s", self.dataset_name, format_classification(self.report))
        if self.output_dir is not None:
            path = self._path(self.output_dir)
            self._write(path.parent)
            logger.info("wrote %s", path)
        flat = {key: float("nan") if value is None else value for key, value in self.report["metrics"].items()}
        return OrderedDict({"classification": flat})

    def _build_report(self, scores: np.ndarray, labels: np.ndarray, digests: Sequence[str]) -> dict[str, Any]:
        count = len(self.classes)
        rows: list[dict[str, Any]]
        if self.multi_label:
            truth = labels.astype(bool)
            metrics, precisions = precision_metrics(scores, truth)
            rows = [
                {"name": name, "AP": precisions[i], "images": int(truth[:, i].sum())}
                for i, name in enumerate(self.classes)
            ]
            confusion = None
        else:
            counts = np.bincount(labels.astype(np.int64) * count + scores.argmax(axis=1), minlength=count * count)
            counts = counts.reshape(count, count)
            metrics = accuracy_metrics(counts)
            totals = counts.sum(axis=1)
            rows = [
                {
                    "name": name,
                    "accuracy": 100 * float(counts[i, i]) / float(totals[i]) if totals[i] else None,
                    "images": int(totals[i]),
                }
                for i, name in enumerate(self.classes)
            ]
            confusion = {"classes": self.classes, "counts": counts.tolist()}
        history = self._history(metrics)
        return {
            "metrics": {**metrics, **best_of(history, self.headline)},
            "dataset": self.dataset_name,
            "modality": self.modality,
            **({"loader": self.loader} if self.loader is not None else {}),
            "per_class": rows,
            "confusion": confusion,
            "history": history,
            "definition": DEFINITION,
            "provenance": {
                "git_commit": source_commit(),
                "versions": installed_versions(),
                **self.provenance,
                "classes": self.classes,
                "data_manifest_sha256": hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(),
                "processes": comm.get_world_size(),
                "images": len(digests),
                "seconds": round(time.perf_counter() - self._started, 3),
            },
        }

    def _history(self, metrics: Mapping[str, float | None]) -> list[dict[str, Any]]:
        """Return this evaluation after the earlier ones of the same training; none outside a training of its own."""
        known = self._read_history()
        iteration = self.provenance.get("iteration")
        weights = self.provenance.get("checkpoint_sha256")
        if iteration is None:
            entries = known.get("entries", [])
            return entries if entries and weights and entries[-1].get("weights_sha256") == weights else []
        same = known.get("config_sha256") == self.provenance.get("config_sha256")
        earlier = [entry for entry in known.get("entries", []) if same and entry["iteration"] < iteration]
        return [*earlier, {"iteration": iteration, "weights_sha256": weights, **metrics}]

    def _path(self, output_dir: str) -> Path:
        return classification_result_path(output_dir, self.dataset_name, self.modality, loader=self.loader)

    def _read_history(self) -> dict[str, Any]:
        if self.output_dir is None:
            return {}
        path = self._path(self.output_dir).with_name("history.json")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self, folder: Path) -> None:
        assert self.report is not None
        if self.provenance.get("iteration") is not None:
            history = {"config_sha256": self.provenance.get("config_sha256"), "entries": self.report["history"]}
            write_text(folder / "history.json", json.dumps(history, indent=1, allow_nan=False) + "\n")
        write_text(folder / "per_class.csv", _per_class_csv(self.report))
        confusion = self.report["confusion"]
        if confusion is not None:
            title = f"{self.dataset_name}, overall accuracy {format_percent(self.report['metrics']['OA'])}"
            draw_confusion(
                np.asarray(confusion["counts"]),
                folder / "confusion.png",
                row_names=self.classes,
                column_names=self.classes,
                title=title,
                counted="images",
            )
        # last, so that a result.json says that the others are there
        write_text(folder / "result.json", json.dumps(self.report, indent=1, allow_nan=False, default=str) + "\n")


def best_of(history: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float | None]:
    """Return the best value of a metric among evaluations and the (first) iteration that it belongs to."""
    known = [entry for entry in history if entry.get(metric) is not None]
    best = max(known, key=lambda entry: entry[metric], default=None)
    return {
        f"{metric} best": None if best is None else best[metric],
        "best iteration": None if best is None else float(best["iteration"]),
        "last iteration": float(history[-1]["iteration"]) if history else None,
    }


def format_classification(report: Mapping[str, Any]) -> str:
    """Return a report as text: figures, what best means, and a line a class."""
    metrics = report["metrics"]
    names = [name for name in ("OA", "AA", "F1", "micro AP", "macro AP") if name in metrics]
    lines = [", ".join(f"{name} {format_percent(metrics[name])}" for name in names)]
    best = next(name for name in metrics if name.endswith(" best"))
    if metrics[best] is not None:
        lines.append(
            f"best {format_percent(metrics[best])} at iteration {metrics['best iteration']:.0f} of "
            f"{metrics['last iteration']:.0f}, chosen among {len(report['history'])} evaluations on these very images"
        )
    shown = "AP" if report["confusion"] is None else "accuracy"
    rows = [[row["name"], format_percent(row[shown]), str(row["images"])] for row in report["per_class"]]
    return "\n".join([*lines, text_table(rows, ["class", shown, "images"], text_columns=1)])


def classification_result_path(
    output_dir: str | Path, dataset_name: str, modality: EvaluationModality = "both", *, loader: str | None = None
) -> Path:
    """Return where the evaluator writes: ``<output_dir>/eval/<dataset>/classification[-<loader>]/result.json``."""
    parts = ["classification", *([safe_name(loader)] if loader else [])]
    parts += ["shuffled-sar"] if modality == "shuffled-sar" else []
    return Path(output_dir) / "eval" / safe_name(dataset_name) / "-".join(parts) / "result.json"


def _per_class_csv(report: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figure = "AP" if report["confusion"] is None else "accuracy"
    writer.writerow(["class", figure, "images"])
    for row in report["per_class"]:
        writer.writerow([row["name"], "" if row[figure] is None else f"{row[figure]:.4f}", row["images"]])
    return text.getvalue()
