"""What the evaluators of texts share: gathering from all processes, and a report with everything that figures need."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from omegaconf import OmegaConf

from mmovseg.data.sample import EvaluationModality, ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions, source_commit
from mmovseg.evaluation.report import safe_name, write_text

logger = logging.getLogger(__name__)

Metrics = Mapping[str, float | None]


class TaskEvaluator(DatasetEvaluator):
    """Keep one row a sample and score all of them together.

    Every process evaluates its share and must call `evaluate`; `report` then holds, on the main process, what
    `result.json` says. Beside it lies `per_image.json` with the scored rows.

    Args:
        dataset_name: used in the result folder and in the report.
        modality: what the model sees, written down.
        loader: name of the test loader where a config has several; the engine fills it in.
        output_dir: the run's output folder; None writes no files.
        provenance: facts to record.
    """

    kind: ClassVar[str]
    """Of the report, and the first part of its folder's name."""
    definition: ClassVar[Mapping[str, str]]
    """What each metric means, kept in the report."""

    def __init__(
        self,
        *,
        dataset_name: str,
        modality: EvaluationModality = "both",
        loader: str | None = None,
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.dataset_name, self.modality, self.loader, self.output_dir = dataset_name, modality, loader, output_dir
        plain: Any = OmegaConf.to_container(provenance) if OmegaConf.is_config(provenance) else provenance
        self.provenance: dict[str, Any] = dict(plain or {})
        self.report: dict[str, Any] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything kept so far."""
        self._rows: list[dict[str, Any]] = []
        self._started = time.perf_counter()

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        """Keep a batch. Raises `UserError` where an input or an output lacks what is scored."""
        for item, output in zip(inputs, outputs, strict=True):
            name = str(item.get("image_id", item.get("file_name", "?")))
            self._rows.append({"image_id": name, **self.row(name, item, output)})

    @abstractmethod
    def row(self, name: str, item: ModelInput, output: Prediction) -> dict[str, Any]:
        """Return what is kept of a sample, json-able. Raises `UserError` where something is missing."""

    @abstractmethod
    def score(self, rows: list[dict[str, Any]]) -> tuple[Metrics, dict[str, Any]]:
        """Score all rows, adding the scores of each to it.

        Returns:
            Metrics (None = not computed) and further entries of the report.
        """

    @abstractmethod
    def describe(self, report: Mapping[str, Any]) -> str:
        """Return a report as text."""

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Join the processes, write the result, return the metrics.

        Returns:
            ``{kind: metrics}`` on the main process, NaN where there is no value, None on the others.

        Raises:
            UserError: the loader gave no sample.
        """
        rows = [row for share in comm.all_gather(self._rows) for row in share]
        if not rows:
            raise UserError(f"the test loader of '{self.dataset_name}' gave no sample")
        if not comm.is_main_process():
            return None
        # only what the data set gives: a manifest must not depend on the model
        manifest = hashlib.sha256("".join(sorted(self.manifest_line(row) for row in rows)).encode()).hexdigest()
        metrics, further = self.score(rows)
        self.report = {
            "metrics": dict(metrics),
            "dataset": self.dataset_name,
            "modality": self.modality,
            **({"loader": self.loader} if self.loader is not None else {}),
            **further,
            "definition": dict(self.definition),
            "provenance": {
                "git_commit": source_commit(),
                "versions": installed_versions(),
                **self.provenance,
                "data_manifest_sha256": manifest,
                "processes": comm.get_world_size(),
                "images": len({row["image_id"] for row in rows}),
                "seconds": round(time.perf_counter() - self._started, 3),
            },
        }
        logger.info("%s:\n%s", self.dataset_name, self.describe(self.report))
        if self.output_dir is not None:
            self._write(self.result_path(self.output_dir), rows)
        flat = {key: float("nan") if value is None else float(value) for key, value in metrics.items()}
        return OrderedDict({self.kind: flat})

    @abstractmethod
    def manifest_line(self, row: Mapping[str, Any]) -> str:
        """Return what identifies a sample and its truth."""

    def result_path(self, output_dir: str | Path) -> Path:
        """Return where the report goes: ``<output_dir>/eval/<dataset>/<kind>[-<loader>]/result.json``."""
        folder = "-".join([self.kind, *([safe_name(self.loader)] if self.loader else [])])
        return Path(output_dir) / "eval" / safe_name(self.dataset_name) / folder / "result.json"

    def _write(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        write_text(path.with_name("per_image.json"), _json(rows))
        # last, so that a result.json says that the other one is there
        write_text(path, _json(self.report))
        logger.info("wrote %s", path)


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"
