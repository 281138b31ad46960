"""Change maps, evaluated: the confusion matrix of segmentation and the F1 scores that damage mapping is judged by."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from torch import Tensor

from mmovseg.data.sample import IGNORE_LABEL, EvaluationModality, ModelInput, Prediction
from mmovseg.data.sar import SarUnit
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.evaluation.confusion import ConfusionMatrix
from mmovseg.evaluation.metrics import summary_metrics
from mmovseg.evaluation.report import result_folder, result_name
from mmovseg.evaluation.sem_seg import OVSegEvaluator
from mmovseg.projects.codemae.evaluation.pictures import ChangeRow, dates_of, draw_change
from mmovseg.projects.codemae.modeling.encoder import Sensor

DEFINITION = {
    "F1-building": "F1 of building against background over all counted pixels, by the model's building scores, without "
    "them by its class 0; a building is every label above 0",
    "F1-<class>": "F1 of a class above 0 over the pixels that are a building in the labels (as xView2 scores); a "
    "building that was not found counts as missed",
    "F1-damage": "harmonic mean of F1-<class> over the classes present; 0 when one of them is 0",
    "F1-overall": "0.3 F1-building + 0.7 F1-damage (as xView2 scores)",
    "F1-changed": "F1 of the one class above 0, with its precision and recall",
    "kappa": "Cohen's kappa of the confusion matrix, in percent",
    "by_event": "images grouped by `source`; one matrix each",
}


@dataclass(frozen=True)
class _Event:
    """What was counted of one event: images, confusion matrix of the classes, and (2, 2) of the buildings."""

    images: int
    counts: np.ndarray
    buildings: np.ndarray

    def __add__(self, other: _Event) -> _Event:
        return _Event(self.images + other.images, self.counts + other.counts, self.buildings + other.buildings)


class DamageEvaluator(OVSegEvaluator):
    """`OVSegEvaluator` with the F1 scores of `DEFINITION`, also by event, and pictures of the first pairs.

    With two classes it reports change (F1, precision, recall, kappa), with more buildings and damage. `result.json`
    also holds all figures under `metrics`.

    Args:
        dataset_name, vocabulary, prompts, modality, output_dir, provenance: see `OVSegEvaluator`.
        num_pictures: pairs to draw into `pictures.png` beside `result.json`.
        before, after: sensor of each date, for the pictures; two dates of one sensor are stacked in channels.
        sar_unit, sar_limits_db: for the pictures, see `dates_of`.
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
        num_pictures: int = 0,
        before: Sensor = "optical",
        after: Sensor = "sar",
        sar_unit: SarUnit = "db",
        sar_limits_db: Sequence[float] | None = None,
    ) -> None:
        self.num_pictures, self.before, self.after, self.sar_unit = num_pictures, before, after, sar_unit
        self.sar_limits_db = None if sar_limits_db is None else (float(sar_limits_db[0]), float(sar_limits_db[1]))
        super().__init__(
            dataset_name=dataset_name,
            vocabulary=vocabulary,
            prompts=prompts,
            modality=modality,
            output_dir=output_dir,
            provenance=provenance,
        )

    def reset(self) -> None:
        super().reset()
        self._buildings = ConfusionMatrix(2)
        self._events: dict[str, _Event] = {}
        self._rows: list[ChangeRow] = []

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        """Count a batch; `building` of a prediction is what its building scores say.

        Raises:
            UserError, ValueError: see `OVSegEvaluator.process`.
        """
        for item, output in zip(inputs, outputs, strict=True):
            before = _Event(0, self._total.counts.copy(), self._buildings.counts.copy())
            super().process([item], [output])
            truth = item["sem_seg"].cpu()
            columns = self._columns[output["sem_seg"].argmax(dim=0).cpu()]
            found = output["building"].cpu() if "building" in output else columns > 0
            self._buildings.update(_is_building(truth), found.long())
            event = str(item.get("source", ""))
            own = _Event(1, self._total.counts - before.counts, self._buildings.counts - before.buildings)
            self._events[event] = self._events[event] + own if event in self._events else own
            if len(self._rows) < self.num_pictures:
                dates = dates_of(
                    item, self.before, self.after, sar_unit=self.sar_unit, sar_limits_db=self.sar_limits_db
                )
                self._rows.append(ChangeRow(*dates, truth=truth.numpy(), predicted=columns.numpy()))

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        self._buildings.reduce()
        together: dict[str, _Event] = {}
        for part in comm.all_gather(self._events):
            for event, counted in part.items():
                together[event] = together[event] + counted if event in together else counted
        self._events = together
        result = super().evaluate()
        if result is not None and self.output_dir is not None and self._rows:
            asked = self.prompts or self.vocabulary
            folder = result_folder(self.output_dir, self.dataset_name, self.modality, result_name(asked))
            draw_change(self._rows, folder / "pictures.png", vocabulary=self.vocabulary)
        return result

    def _build_report(self, images: int, images_by_cloud: np.ndarray, digests: list[str]) -> dict[str, Any]:
        report = super()._build_report(images, images_by_cloud, digests)
        metrics = change_metrics(self._total.counts, self.vocabulary, self._buildings.counts)
        names = [name for name in self._events if name]
        events = [
            {
                "event": name,
                "images": self._events[name].images,
                "mIoU": summary_metrics(self._events[name].counts, self.vocabulary)["mIoU"],
                **change_metrics(self._events[name].counts, self.vocabulary, self._events[name].buildings),
            }
            for name in sorted(names)
        ]
        headline = {name: report[name] for name in ("mIoU", "pACC")}
        return {
            **report,
            "metrics": {**headline, **metrics},
            "by_event": events,
            "definition": {**report["definition"], **DEFINITION},
        }

    @staticmethod
    def _flat(report: dict[str, Any]) -> dict[str, float]:
        known = {name: value for name, value in report["metrics"].items() if value is not None}
        return {**OVSegEvaluator._flat(report), **known}


def change_metrics(
    counts: np.ndarray, vocabulary: Vocabulary, buildings: np.ndarray | None = None
) -> dict[str, float | None]:
    """Return the figures of `DEFINITION` in percent; None where a class has no pixel in the labels.

    Args:
        counts: (K, K or more) pixels, rows truth, columns predicted.
        vocabulary: K classes, the first of which is background or unchanged.
        buildings: (2, 2) of the building scores; None = by the classes of `counts`.
    """
    if len(vocabulary) == 2:
        hits, truth, found = int(counts[1, 1]), int(counts[1].sum()), int(counts[:, 1].sum())
        return {
            "F1-changed": _f1(hits, truth, found),
            "precision-changed": 100.0 * hits / found if found else None,
            "recall-changed": 100.0 * hits / truth if truth else None,
            "kappa": _kappa(counts),
        }
    if buildings is None:
        buildings = np.array([[counts[0, 0], counts[0, 1:].sum()], [counts[1:, 0].sum(), counts[1:, 1:].sum()]])
    on_buildings = counts[1:]
    of_class: dict[str, float | None] = {}
    for i, name in enumerate(vocabulary.names[1:]):
        hits, truth, found = (
            int(part) for part in (on_buildings[i, i + 1], on_buildings[i].sum(), on_buildings[:, i + 1].sum())
        )
        of_class[f"F1-{name}"] = _f1(hits, truth, found)
    known = [value for value in of_class.values() if value is not None]
    damage = None if not known else 0.0 if min(known) == 0 else len(known) / sum(1.0 / value for value in known)
    building = _f1(int(buildings[1, 1]), int(buildings[1].sum()), int(buildings[:, 1].sum()))
    overall = None if building is None or damage is None else 0.3 * building + 0.7 * damage
    return {"F1-building": building, "F1-damage": damage, "F1-overall": overall, **of_class}


def _f1(hits: int, truth: int, found: int) -> float | None:
    return 200.0 * hits / (truth + found) if truth else None


def _kappa(counts: np.ndarray) -> float | None:
    total = counts.sum()
    if not total:
        return None
    square = counts[:, : len(counts)].astype(float)
    agreed = np.trace(square) / total
    by_chance = float((square.sum(axis=1) * square.sum(axis=0)).sum()) / float(total) ** 2
    return float(100.0 * (agreed - by_chance) / (1.0 - by_chance)) if by_chance < 1 else None


def _is_building(truth: Tensor) -> Tensor:
    return torch.where(truth == IGNORE_LABEL, truth, (truth > 0).long())
