"""Pictures of change: both dates, what is true, what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mmovseg.data.sample import ModelInput
from mmovseg.data.sar import SarUnit
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.projects.codemae.modeling.encoder import Sensor
from mmovseg.visualization.draw import color_labels, optical_to_rgb, sar_to_rgb
from mmovseg.visualization.figure import (
    FAINT,
    FONT,
    add_legend,
    legend_height_in,
    new_figure,
    place_axes,
    save_figure,
    write,
)
from mmovseg.visualization.panels import share_right

_WIDTH_IN, _GAP_IN, _CAPTION_IN = 2.0, 0.1, 0.22


@dataclass
class ChangeRow:
    """One pair: (H, W, 3) uint8 pictures of both dates, (H, W) labels that are true and that came out."""

    before: np.ndarray
    after: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def dates_of(
    item: ModelInput,
    before: Sensor,
    after: Sensor,
    *,
    sar_unit: SarUnit = "db",
    sar_limits_db: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return both dates of a model input as (H, W, 3) uint8 pictures.

    Args:
        item: with the rasters of both sensors, or two dates of one stacked in channels.
        before, after: sensor of each date.
        sar_unit: of the SAR values.
        sar_limits_db: drawn black and white, the first channel alone; for SAR without calibration.
    """
    pictures = []
    for number, sensor in enumerate((before, after)):
        raster: Tensor = item["image"] if sensor == "optical" else item["sar"]
        if before == after:
            raster = raster.chunk(2)[number]
        pixels = raster.permute(1, 2, 0).cpu().float().numpy()
        if sensor == "optical":
            pictures.append(optical_to_rgb(pixels))
        else:
            pictures.append(sar_to_rgb(pixels, unit=sar_unit, limits_db=sar_limits_db))
    return pictures[0], pictures[1]


def draw_change(rows: Sequence[ChangeRow], path: str | Path, *, vocabulary: Vocabulary) -> None:
    """Draw one line a pair, before | after | truth | predicted, with the share of right pixels and a legend.

    Args:
        rows: at least one; pairs may differ in size.
        path: PNG file.
        vocabulary: names and colours of the labels.
    """
    if not rows:
        raise ValueError("nothing to draw: no rows")
    heights = [_WIDTH_IN * row.truth.shape[0] / row.truth.shape[1] for row in rows]
    width = 0.24 + 4 * (_WIDTH_IN + _GAP_IN) - _GAP_IN
    bottom = legend_height_in(vocabulary, width)
    figure = new_figure(width, 0.34 + sum(heights) + (_GAP_IN + _CAPTION_IN) * len(rows) + bottom)
    top = figure.get_figheight() - 0.3
    for column, title in enumerate(("before", "after", "truth", "predicted")):
        write(figure, 0.12 + column * (_WIDTH_IN + _GAP_IN) + _WIDTH_IN / 2, top + 0.12, title, size=9.5, bold=True)
    for row, height in zip(rows, heights, strict=True):
        right = share_right(row.predicted, row.truth)
        labels = [color_labels(label, vocabulary.colors) for label in (row.truth, row.predicted)]
        for column, picture in enumerate((row.before, row.after, *labels)):
            x = 0.12 + column * (_WIDTH_IN + _GAP_IN)
            axes = place_axes(figure, x, top - height, _WIDTH_IN, height)
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            if column == 3 and right is not None:
                axes.set_xlabel(f"{right:.0f}% right", fontsize=7.5, color=FAINT, family=FONT, labelpad=3)
        top -= height + _GAP_IN + _CAPTION_IN
    add_legend(figure, vocabulary)
    save_figure(figure, path)
