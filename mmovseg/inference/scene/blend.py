"""Blend overlapping windows into finished rows, holding no more of the scene than one row of windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmovseg.inference.scene.layers import BOTH, NEITHER, ONLY_OPTICAL, ONLY_SAR
from mmovseg.inference.scene.tiling import Tiling


@dataclass
class Rows:
    """Finished rows; views that hold until the blender is used again.

    scores: (K, rows, W) float32, weighted mean of all windows; 0 where none was predicted. quality: (rows, W) uint8.
    """

    first: int
    scores: Tensor
    quality: np.ndarray


class BandBlender:
    """Weighted sums of scores over one row of windows at a time.

    The sums live where the scores come from, so on a GPU nothing but finished rows is copied. Windows are added in
    ascending order of rows and columns, so every pixel is summed in the same order whatever row a run starts at.

    Args:
        tiling: of the scene.
        num_classes: K.
        device: of the sums.
        first_row: row of the scene below which everything is wanted; sums above it are thrown away.
    """

    def __init__(self, tiling: Tiling, *, num_classes: int, device: torch.device, first_row: int = 0) -> None:
        self.tiling = tiling
        height, width = tiling.rows.tile, tiling.columns.size
        self.top = tiling.rows.starts[tiling.rows.covering(first_row, first_row + 1)[0]]
        self.wanted = first_row
        self._done = 0  # rows that were handed out and are still in the sums
        self.sums = torch.zeros((num_classes, height, width), dtype=torch.float32, device=device)
        self.weights = torch.zeros((height, width), dtype=torch.float32, device=device)
        self.quality = np.full((height, width), NEITHER, dtype=np.uint8)
        self._row_weights = [
            torch.from_numpy(tiling.rows.weights(i)).to(device) for i in range(len(tiling.rows.starts))
        ]
        self._column_weights = {
            i: torch.from_numpy(tiling.columns.weights(i)).to(device) for i in range(len(tiling.columns.starts))
        }

    @staticmethod
    def bytes_needed(tiling: Tiling, num_classes: int) -> int:
        """Return what the sums take."""
        return tiling.rows.tile * tiling.columns.size * (4 * num_classes + 5)

    def advance(self, row: int) -> Rows | None:
        """Make room for window row `row`; return the rows above it that are finished now, None if there are none.

        They are taken out of the sums when the blender is used next.
        """
        self._take_out()
        return self._finished(self.tiling.rows.starts[row] - self.top)

    def finish(self) -> Rows | None:
        """Return the rows that are left after the last window row."""
        self._take_out()
        return self._finished(min(self.sums.shape[1], self.tiling.rows.size - self.top))

    def add(self, row: int, column: int, scores: Tensor) -> None:
        """Add one window.

        Args:
            row, column: which window; `advance` has been called for its row.
            scores: (K, tile, tile) of the output grid, float32 on the device of the sums.
        """
        self._take_out()
        left = self.tiling.columns.starts[column]
        weight = self._row_weights[row][:, None] * self._column_weights[column]
        place = (slice(0, weight.shape[0]), slice(left, left + weight.shape[1]))
        self.sums[(slice(None), *place)].addcmul_(scores, weight[None])
        self.weights[place] += weight

    def mark(self, row: int, left: int, quality: np.ndarray) -> None:
        """Say what saw the ground in (tile, w) pixels from column `left` on of window row `row`."""
        self._take_out()
        assert self.tiling.rows.starts[row] == self.top, "windows come in ascending rows"
        self.quality[:, left : left + quality.shape[1]] = quality

    def _finished(self, count: int) -> Rows | None:
        skip = min(max(self.wanted - self.top, 0), max(count, 0))
        self._done = max(count, 0)
        if skip >= count:
            return None
        scores = self.sums[:, skip:count]
        weights = self.weights[skip:count]
        scores /= weights.clamp_min(torch.finfo(torch.float32).tiny)
        self.quality[skip:count][(weights == 0).cpu().numpy()] = NEITHER  # no window there had anything to see
        return Rows(self.top + skip, scores, self.quality[skip:count])

    def _take_out(self) -> None:
        """Move the unfinished rows to the top, in pieces that do not overlap: a copy may not read what it wrote."""
        count, height = self._done, self.sums.shape[1]
        if not count:
            return
        for low in range(count, height, count):
            high = min(low + count, height)
            self.sums[:, low - count : high - count] = self.sums[:, low:high]
            self.weights[low - count : high - count] = self.weights[low:high]
            self.quality[low - count : high - count] = self.quality[low:high]
        keep = max(height - count, 0)
        self.sums[:, keep:] = 0
        self.weights[keep:] = 0
        self.quality[keep:] = NEITHER
        self.top += count
        self._done = 0


def quality_of(
    optical: np.ndarray | None, sar: np.ndarray | None, clouded: np.ndarray | None, shape: tuple[int, int]
) -> np.ndarray:
    """Return (h, w) uint8: which sensors saw the ground.

    Args:
        optical, sar: (h, w) bool, where there is data; None = the sensor is absent.
        clouded: (h, w) bool, where a cloud hides the ground from the optical one.
        shape: (h, w).
    """
    none = np.zeros(shape, dtype=bool)
    sees_optical = none if optical is None else optical if clouded is None else optical & ~clouded
    sees_sar = none if sar is None else sar
    return np.where(
        sees_sar, np.where(sees_optical, BOTH, ONLY_SAR), np.where(sees_optical, ONLY_OPTICAL, NEITHER)
    ).astype(np.uint8)
