"""The one thing that is counted during an evaluation: pixels by true and by predicted class."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.utils import comm
from torch import Tensor

from mmovseg.data.sample import IGNORE_LABEL


class ConfusionMatrix:
    """Count pixels by (true class, predicted class); every metric is computed from the counts alone.

    `counts` is int64 (G, P): rows are the G classes of the label space, columns what was predicted. P may exceed G,
    when names were asked for that the labels do not know; column i < G is class i.
    """

    def __init__(self, num_truth: int, num_predicted: int | None = None) -> None:
        self.num_truth = num_truth
        self.num_predicted = num_truth if num_predicted is None else num_predicted
        if not 0 < self.num_truth <= self.num_predicted:
            raise ValueError(f"need 0 < truth classes <= predicted classes, got {num_truth} and {num_predicted}")
        self.counts = np.zeros((self.num_truth, self.num_predicted), dtype=np.int64)

    def update(self, truth: Tensor, predicted: Tensor) -> int:
        """Add one image or batch.

        Args:
            truth: integer labels of any shape; 255 is left out.
            predicted: integer columns, same shape.

        Returns:
            How many pixels were counted.

        Raises:
            ValueError: shapes differ, or a value lies outside its axis.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"truth is {tuple(truth.shape)} but the prediction is {tuple(predicted.shape)}")
        keep = truth != IGNORE_LABEL
        rows, columns = truth[keep].long(), predicted[keep].long()
        for what, values, limit in (("label", rows, self.num_truth), ("prediction", columns, self.num_predicted)):
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < limit:
                wrong = int(values.max()) if int(values.max()) >= limit else int(values.min())
                raise ValueError(f"{what} value {wrong} is outside 0..{limit - 1}")
        flat = torch.bincount(rows * self.num_predicted + columns, minlength=self.counts.size)
        self.counts += flat.cpu().numpy().reshape(self.counts.shape)
        return int(rows.numel())

    def reduce(self) -> None:
        """Replace the counts by their sum over all processes (every process must call it)."""
        self.counts = sum_over_processes(self.counts)


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """Return the element-wise sum of an array over all processes; the array itself when there is only one."""
    if comm.get_world_size() == 1:
        return values
    return np.sum(comm.all_gather(values), axis=0, dtype=values.dtype)
