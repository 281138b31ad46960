"""An evaluator that also keeps the confusion of every single image, for spreads over places and groups of places."""

from __future__ import annotations

import csv
import io
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.utils import comm

from mmovseg.data.sample import ModelInput, Prediction
from mmovseg.evaluation.report import result_folder, result_name, write_text
from mmovseg.evaluation.sem_seg import OVSegEvaluator

PER_IMAGE_FILE = "per_image.csv"


class PerImageEvaluator(OVSegEvaluator):
    """`OVSegEvaluator` that also writes `per_image.csv` beside `result.json`.

    Columns: ``image_id`` and, for each label class and each predicted one, ``<truth>><predicted>`` in pixels. Summed
    over the images they are the matrix of `result.json`.
    """

    def reset(self) -> None:
        super().reset()
        self._rows: list[tuple[str, list[int]]] = []

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        for item, output in zip(inputs, outputs, strict=True):
            before = self._total.counts.copy()
            super().process([item], [output])
            self._rows.append((str(item["image_id"]), (self._total.counts - before).ravel().tolist()))

    @property
    def per_image(self) -> dict[str, np.ndarray]:
        """Image id -> (G, P) int64 counts of what this process evaluated, in its order."""
        shape = self._total.counts.shape
        return {name: np.array(counts, dtype=np.int64).reshape(shape) for name, counts in self._rows}

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        rows = [row for part in comm.all_gather(self._rows) for row in part]
        result = super().evaluate()
        if result is not None and self.output_dir is not None:
            asked = self.prompts or self.vocabulary
            folder = result_folder(self.output_dir, self.dataset_name, self.modality, result_name(asked))
            names = [*self.vocabulary.names, *self.mapping.extra_names]
            header = [f"{truth}>{predicted}" for truth in self.vocabulary.names for predicted in names]
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["image_id", *header])
            writer.writerows([name, *counts] for name, counts in sorted(rows))
            write_text(folder / PER_IMAGE_FILE, text.getvalue())
        return result


def read_per_image(path: str | Path, num_classes: int) -> dict[str, np.ndarray]:
    """Read `per_image.csv`: image id -> (num_classes, P) int64 counts, rows truth, columns predicted."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        _, *rows = list(csv.reader(file))
    return {row[0]: np.array(row[1:], dtype=np.int64).reshape(num_classes, -1) for row in rows}
