"""Read, ask, blend: the windows of a scene in order, and the parts of the map that come out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mmovseg.inference.scene.blend import BandBlender, Rows, quality_of
from mmovseg.inference.scene.layers import NEITHER, SCORE_SCALE, Layer
from mmovseg.inference.scene.options import CloudPolicy
from mmovseg.inference.scene.plan import ScenePlan
from mmovseg.inference.scene.rasters import ScenePair, WindowData
from mmovseg.inference.scene.windows import WindowModel

_CHUNK_BYTES = 32 * 2**20  # of scores that become labels at once


@dataclass
class Timings:
    """Seconds by what they were spent on. `read`: waiting for rasters, beyond what was read while the model worked."""

    read: float = 0.0
    model: float = 0.0
    blend: float = 0.0
    write: float = 0.0
    finish: float = 0.0


@dataclass
class Batch:
    """Adjacent windows of one window row: what the model sees, and (tile, w) uint8 quality of all their pixels."""

    row: int
    columns: range
    windows: list[WindowData]
    quality: np.ndarray


@dataclass
class SceneStream:
    """The windows of one scene.

    pair: rasters. plan: windows. model: asked about them. layers: wanted by the caller. clouds: see `SceneOptions`.
    """

    pair: ScenePair
    plan: ScenePlan
    model: WindowModel
    layers: Sequence[Layer]
    clouds: CloudPolicy = "keep"
    timings: Timings = field(default_factory=Timings)

    def parts(self, indices: range) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield adjacent parts: index and the layers' arrays, (bands, rows, W) or (rows, W) for one band.

        Raises:
            UserError: a raster cannot be read.
        """
        builder = _PartBuilder(self, indices)
        for rows in self.rows(builder.first_row, builder.last_row):
            yield from builder.take(rows)

    def rows(self, first_row: int, last_row: int) -> Iterator[Rows]:
        """Yield blended scores of ``first_row <= row < last_row`` from top to bottom; a view, to be used at once.

        Raises:
            UserError: a raster cannot be read.
        """
        tiling = self.plan.tiling
        blender = BandBlender(tiling, num_classes=self.plan.num_classes, device=self.model.device, first_row=first_row)
        window_rows = tiling.rows.covering(first_row, last_row)
        for batch in self._read_ahead([(row, columns) for row in window_rows for columns in tiling.batches()]):
            if batch.columns.start == 0:
                done = blender.advance(batch.row)
                if done is not None:
                    yield done
            self._add(blender, batch)
        done = blender.finish()
        if done is not None:
            count = last_row - done.first  # the last window row reaches below what is wanted
            yield Rows(done.first, done.scores[:, :count], done.quality[:count])

    def _read_ahead(self, jobs: Sequence[tuple[int, range]]) -> Iterator[Batch]:
        """Read one batch while the model works on another."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self.read, *jobs[0])
            for number in range(len(jobs)):
                start = time.perf_counter()
                batch = ahead.result()
                self.timings.read += time.perf_counter() - start
                if number + 1 < len(jobs):
                    ahead = reader.submit(self.read, *jobs[number + 1])
                yield batch

    def read(self, row: int, columns: range) -> Batch:
        """Read adjacent windows, each pixel once.

        Raises:
            UserError: a raster cannot be read.
        """
        tiling = self.plan.tiling
        top, height, width = tiling.rows.starts[row], tiling.rows.tile, tiling.columns.tile
        starts = [tiling.columns.starts[column] for column in columns]
        left, right = starts[0], starts[-1] + width
        union = self.pair.read(top, left, height, right - left)
        quality = self._quality(union, (height, right - left))
        if self.plan.resampled:  # what falls between the pixels of one window must not depend on its neighbours
            size = self.plan.network_size(height, width)
            windows = [self.pair.read(top, start, height, width, out_shape=size) for start in starts]
        else:
            windows = [_cut(union, start - left, width) for start in starts]
        if self.clouds == "withhold":
            windows = [_withhold_clouds(window) for window in windows]
        return Batch(row, columns, windows, quality)

    def _quality(self, window: WindowData, shape: tuple[int, int]) -> np.ndarray:
        modality = self.model.modality
        optical = window.optical_valid if window.optical is not None and modality != "sar" else None
        sar = window.sar_valid if window.sar is not None and modality != "optical" else None
        return quality_of(optical, sar, window.clouded, shape)

    def _add(self, blender: BandBlender, batch: Batch) -> None:
        start = time.perf_counter()
        tiling = self.plan.tiling
        size = (tiling.rows.tile, tiling.columns.tile)
        scores = self.model(batch.windows, size=size)
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        middle = time.perf_counter()
        blender.mark(batch.row, tiling.columns.starts[batch.columns.start], batch.quality)
        for column, window_scores in zip(batch.columns, scores, strict=True):
            if window_scores is not None:
                blender.add(batch.row, column, window_scores)
        self.timings.model += middle - start
        self.timings.blend += time.perf_counter() - middle


class _PartBuilder:
    """Collect finished rows until a part is whole."""

    def __init__(self, stream: SceneStream, indices: range) -> None:
        self.stream = stream
        self.indices = list(indices)
        bounds = stream.plan.tiling.parts
        self.first_row, self.last_row = bounds[indices[0]][0], bounds[indices[-1]][1]
        self.arrays: dict[str, np.ndarray] = {}

    def take(self, rows: Rows) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Add rows and yield the part that they complete, if they do; parts end where window rows start."""
        start = time.perf_counter()
        first, last = self.stream.plan.tiling.parts[self.indices[0]]
        if not self.arrays:
            self.arrays = {layer.name: self._empty(layer, last - first) for layer in self.stream.layers}
        count = rows.scores.shape[1]
        per_row = 4 * rows.scores.shape[0] * rows.scores.shape[2]
        step = max(1, _CHUNK_BYTES // per_row)
        for low in range(0, count, step):
            high = min(low + step, count)
            place = slice(rows.first - first + low, rows.first - first + high)
            self._fill(place, rows.scores[:, low:high], rows.quality[low:high])
        self.stream.timings.blend += time.perf_counter() - start
        if rows.first + count == last:
            done, self.arrays = self.arrays, {}
            yield self.indices.pop(0), done

    def _empty(self, layer: Layer, rows: int) -> np.ndarray:
        width = self.stream.plan.grid.width
        shape = (rows, width) if layer.bands == 1 and layer.name != "probabilities" else (layer.bands, rows, width)
        return np.empty(shape, dtype=layer.dtype)

    def _fill(self, place: slice, scores: Tensor, quality: np.ndarray) -> None:
        unknown = quality == NEITHER
        stored = {"quality": quality, "labels": scores.argmax(dim=0).to(torch.int32).cpu().numpy()}
        if {"confidence", "probabilities"} & set(self.arrays):
            steps = (self.stream.model.probabilities(scores) / SCORE_SCALE).round_().to(torch.uint8)
            stored["probabilities"] = steps.cpu().numpy()
            stored["confidence"] = steps.amax(dim=0).cpu().numpy()
        for layer in self.stream.layers:
            target = self.arrays[layer.name][..., place, :]
            target[...] = stored[layer.name]
            if layer.nodata is not None:
                target[..., unknown] = layer.nodata


def _cut(window: WindowData, left: int, width: int) -> WindowData:
    """Return `width` columns of a window, as views."""

    def part(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[:, left : left + width]

    return WindowData(
        optical=part(window.optical),
        optical_valid=part(window.optical_valid),  # type: ignore[arg-type]
        sar=part(window.sar),
        sar_valid=part(window.sar_valid),  # type: ignore[arg-type]
        clouded=part(window.clouded),
    )


def _withhold_clouds(window: WindowData) -> WindowData:
    """Return the window with the clouded pixels of its optical image marked as no data."""
    if window.clouded is None or window.optical is None:
        return window
    return replace(window, optical_valid=window.optical_valid & ~window.clouded)
