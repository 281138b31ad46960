"""Open-vocabulary segmentation, evaluated: one confusion matrix, seen and unseen classes apart."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import Tensor

from mmovseg.data.clouds import COVERED_ALPHA
from mmovseg.data.sample import IGNORE_LABEL, EvaluationModality, ModelInput, Prediction
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.evaluation.confusion import ConfusionMatrix, sum_over_processes
from mmovseg.evaluation.label_mapping import RULES, LabelMapping, map_prompts
from mmovseg.evaluation.metrics import (
    DEFINITION,
    HEADLINE,
    constant_baseline,
    per_class_metrics,
    permuted_metrics,
    summary_metrics,
)
from mmovseg.evaluation.provenance import installed_versions, source_commit
from mmovseg.evaluation.report import format_table, result_folder, result_name, write_report

CLOUD_BINS = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))


class OVSegEvaluator(DatasetEvaluator):
    """Compare argmax of the scores with the labels, for every pixel that is not 255.

    Keeps counts only: memory does not grow with the data set. Every process evaluates its share; the counts are summed
    in `evaluate`, which every process must call. `report` then holds, on the main process, what `result.json` says.

    Args:
        dataset_name: used in the result folder and in the report.
        vocabulary: the label space; label id = position. Its seen/unseen marks split the metrics.
        prompts: what the model is asked with, when that is not `vocabulary`; matched as `map_prompts` says.
        modality: written down; loader and mapper are what withholds or disturbs a modality.
        output_dir: the run's output folder; None writes no files.
        provenance: facts to record (config, weights hash, data manifest hash, seed, ...); commit, versions,
            counts, time, hashes of vocabulary and labels are added.
    """

    def __init__(
        self,
        *,
        dataset_name: str,
        vocabulary: Vocabulary,
        prompts: Vocabulary | None = None,
        modality: EvaluationModality = "both",
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.dataset_name = dataset_name
        self.vocabulary = vocabulary
        self.prompts = prompts
        self.modality = modality
        self.output_dir = output_dir
        # a config file gives containers of its own kind, which JSON does not know
        plain: Any = OmegaConf.to_container(provenance) if OmegaConf.is_config(provenance) else provenance
        self.provenance: dict[str, Any] = dict(plain or {})
        self.mapping: LabelMapping = map_prompts(vocabulary, prompts)
        self.report: dict[str, Any] | None = None
        self._columns = torch.tensor(self.mapping.columns)
        self._not_asked = torch.tensor(self.mapping.not_asked, dtype=torch.int64)
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        size, extra = len(self.vocabulary), len(self.mapping.extra_names)
        self._total = ConfusionMatrix(size, size + extra)
        self._by_cloud = [ConfusionMatrix(size, size + extra) for _ in CLOUD_BINS]
        self._images_by_cloud = np.zeros(len(CLOUD_BINS), dtype=np.int64)
        self._images = 0
        self._digests: list[str] = []
        self._started = time.perf_counter()

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        """Count a batch.

        Args:
            inputs: model inputs with `sem_seg` (H, W) labels of the full label space at the original raster size.
            outputs: predictions with `sem_seg` (K, H, W) scores, K = number of names asked for.

        Raises:
            UserError: a label is outside the class list.
            ValueError: scores differ from the labels in size or from the vocabulary in number, or are NaN.
        """
        for item, output in zip(inputs, outputs, strict=True):
            name = str(item.get("file_name", item.get("image_id", "?")))
            truth, predicted = self._truth(item, name), self._columns_predicted(output["sem_seg"], name)
            if truth.shape != predicted.shape:
                raise ValueError(f"'{name}': scores are {tuple(predicted.shape)}, labels are {tuple(truth.shape)}")
            self._total.update(truth, predicted)
            if "cloud_alpha" in item:
                where = cloud_bin(float((item["cloud_alpha"] > COVERED_ALPHA).float().mean()))
                self._by_cloud[where].update(truth, predicted)
                self._images_by_cloud[where] += 1
            self._images += 1

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Sum over processes, write the result files, return the metrics.

        Returns:
            `{"sem_seg": {"mIoU": ..., "IoU-<class>": ...}}` in percent on the main process, None on the others.
            Headline metrics without a value are NaN here, since loggers want floats (None in the report and in JSON).
        """
        for matrix in (self._total, *self._by_cloud):
            matrix.reduce()
        images = int(sum_over_processes(np.array([self._images]))[0])
        images_by_cloud = sum_over_processes(self._images_by_cloud)
        digests = [digest for part in comm.all_gather(self._digests) for digest in part]
        if not comm.is_main_process():
            return None
        self.report = self._build_report(images, images_by_cloud, digests)
        logger = logging.getLogger(__name__)
        logger.info("%s, %s:\n%s", self.dataset_name, self.modality, format_table(self.report))
        if self.output_dir is not None:
            asked = self.prompts or self.vocabulary
            folder = result_folder(self.output_dir, self.dataset_name, self.modality, result_name(asked))
            write_report(self.report, folder)
            logger.info("wrote %s", folder / "result.json")
        return OrderedDict({"sem_seg": self._flat(self.report)})

    def _truth(self, item: ModelInput, name: str) -> Tensor:
        if "sem_seg" not in item:
            raise UserError(f"'{name}' has no labels to evaluate against; give sem_seg_file_name in its dataset dict")
        truth = item["sem_seg"].cpu()
        wrong = truth[(truth != IGNORE_LABEL) & ((truth < 0) | (truth >= len(self.vocabulary)))]
        if wrong.numel():
            raise UserError(
                f"label of '{name}' has the value {int(wrong[0])}, outside the class list 0..{len(self.vocabulary) - 1}"
            )
        digest = hashlib.sha256(f"{item.get('image_id', name)} {tuple(truth.shape)}".encode())
        digest.update(truth.to(torch.int32).numpy().tobytes())
        self._digests.append(digest.hexdigest())
        if self._not_asked.numel():
            truth = truth.masked_fill(torch.isin(truth, self._not_asked), IGNORE_LABEL)
        return truth

    def _columns_predicted(self, scores: Tensor, name: str) -> Tensor:
        if scores.shape[0] != len(self.mapping.columns):
            raise ValueError(f"'{name}': {scores.shape[0]} score maps for {len(self.mapping.columns)} names asked for")
        if bool(torch.isnan(scores).any()):
            raise ValueError(f"'{name}': the model's scores hold NaN")
        return self._columns[scores.argmax(dim=0).cpu()]

    def _build_report(self, images: int, images_by_cloud: np.ndarray, digests: list[str]) -> dict[str, Any]:
        counts, vocabulary, mapping = self._total.counts, self.vocabulary, self.mapping
        ious, accuracies = per_class_metrics(counts)
        per_class = [
            {
                "name": entry.name,
                "seen": entry.seen,
                "IoU": ious[i],
                "accuracy": accuracies[i],
                "pixels": int(counts[i].sum()),
                "predicted_pixels": int(counts[:, i].sum()),
            }
            for i, entry in enumerate(vocabulary.classes)
        ]
        asked = self.prompts or vocabulary
        return {
            **summary_metrics(counts, vocabulary),
            "dataset": self.dataset_name,
            "modality": self.modality,
            "vocabulary": asked.name,
            "prompts": asked.names,
            "per_class": per_class,
            "not_asked": [vocabulary.names[i] for i in mapping.not_asked],
            "not_in_labels": list(mapping.extra_names),
            "permuted": permuted_metrics(counts, vocabulary, mapping.asked),
            "constant_baseline": constant_baseline(counts, vocabulary),
            "by_cloud_cover": self._cloud_report(images_by_cloud),
            "confusion": {
                "rows_truth": vocabulary.names,
                "columns_predicted": [*vocabulary.names, *mapping.extra_names],
                "counts": counts.tolist(),
            },
            "definition": {**DEFINITION, "vocabulary": RULES[mapping.rule], **_CONTROL_DEFINITIONS},
            "provenance": {
                "git_commit": source_commit(),
                "versions": installed_versions(),
                **self.provenance,
                "vocabulary_sha256": asked.sha256,
                "label_space_sha256": vocabulary.sha256,
                "data_manifest_sha256": hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(),
                "processes": comm.get_world_size(),
                "images": images,
                "pixels": int(counts.sum()),
                "seconds": round(time.perf_counter() - self._started, 3),
            },
        }

    def _cloud_report(self, images: np.ndarray) -> list[dict[str, Any]]:
        if not images.sum():
            return []
        rows = []
        for (low, high), matrix, count in zip(CLOUD_BINS, self._by_cloud, images, strict=True):
            metrics = summary_metrics(matrix.counts, self.vocabulary)
            rows.append({"from": low, "to": high, "images": int(count), **{key: metrics[key] for key in HEADLINE}})
        return rows

    @staticmethod
    def _flat(report: dict[str, Any]) -> dict[str, float]:
        keys = (*HEADLINE, "mIoU-union", "fwIoU", "pACC", "mACC")
        flat = {key: float("nan") if report[key] is None else float(report[key]) for key in keys}
        for row in report["per_class"]:
            if row["IoU"] is not None:
                flat[f"IoU-{row['name']}"] = row["IoU"]
        return flat


_CONTROL_DEFINITIONS = {
    "permuted": (
        "control: mean of each metric over all cyclic shifts of the class names, by shifting the prediction axis of "
        "the matrix; valid for models whose scores permute with the names"
    ),
    "constant_baseline": "the best that predicting one class everywhere reaches, the class chosen on this test set",
    "data_manifest_sha256": "over the sorted hashes of (image id, size, labels) of every image evaluated",
    "by_cloud_cover": "images grouped by the share of pixels under cloud of opacity above 0.5; one matrix each",
}


def cloud_bin(cover: float) -> int:
    """Return the index into `CLOUD_BINS` of a cloud cover in [0, 1]; bins are closed below, the last also above."""
    return min(int(cover * len(CLOUD_BINS)), len(CLOUD_BINS) - 1)


def result_path(output_dir: str | Path, dataset_name: str, modality: EvaluationModality, vocabulary_name: str) -> Path:
    """Return where `OVSegEvaluator` writes `result.json`."""
    return result_folder(output_dir, dataset_name, modality, vocabulary_name) / "result.json"
