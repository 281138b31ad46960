"""One picture of what went in, what is true and what came out: optical | SAR | cloud | truth | prediction(s)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmovseg.data.clouds import COVERED_ALPHA
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.vocabulary import Vocabulary
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

_CELL_IN = 1.5
_GAP_IN = 0.08
_CAPTION_IN = 0.2


@dataclass
class PanelRow:
    """One scene. What is None leaves its cell empty; a column that is empty in all rows is left out.

    optical: (H, W, 3) on the 0..255 scale, as the model saw it (clouded).
    sar_db: (H, W, P) dB. cloud_alpha: (H, W) in 0..1. truth: (H, W) labels.
    sar_rgb: (H, W, 3) uint8, drawn in the place of `sar_db`, for SAR that is not in dB.
    predictions: column title -> (H, W) labels; the same titles in every row.
    title: written at the left.
    """

    optical: np.ndarray | None = None
    sar_db: np.ndarray | None = None
    sar_rgb: np.ndarray | None = None
    cloud_alpha: np.ndarray | None = None
    truth: np.ndarray | None = None
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    title: str = ""


def draw_panels(rows: Sequence[PanelRow], path: str | Path, *, vocabulary: Vocabulary, title: str = "") -> None:
    """Draw one line of pictures for each scene, with column titles and a legend whose unseen classes are underlined.

    Under each prediction stands the share of its pixels that are right (255 left out).

    Args:
        rows: at least one scene.
        path: PNG file; the same rows give the same bytes.
        vocabulary: names, colours and the seen/unseen split of the labels.
        title: one line above everything.
    """
    if not rows:
        raise ValueError("nothing to draw: no rows")
    cells = [_cells(row, vocabulary) for row in rows]
    columns = [name for name in _column_order(cells) if any(name in line for line in cells)]
    left, right, top = 0.35 if any(row.title for row in rows) else 0.12, 0.12, 0.32 + (0.34 if title else 0)
    step_x, step_y = _CELL_IN + _GAP_IN, _CELL_IN + _GAP_IN + _CAPTION_IN
    width = left + right + step_x * len(columns) - _GAP_IN
    bottom = legend_height_in(vocabulary, width)
    height = top + bottom + step_y * len(rows)
    figure = new_figure(width, height)
    for j, name in enumerate(columns):
        write(figure, left + j * step_x + _CELL_IN / 2, height - top + 0.12, name, size=9.5, bold=True)
    for i, (row, line) in enumerate(zip(rows, cells, strict=True)):
        y = height - top - i * step_y - _CELL_IN
        if row.title:
            write(figure, 0.17, y + _CELL_IN / 2, row.title, size=8.5, rotation=90)
        for j, name in enumerate(columns):
            if name not in line:
                continue
            image, caption = line[name]
            axes = place_axes(figure, left + j * step_x, y, _CELL_IN, _CELL_IN)
            axes.imshow(image, interpolation="nearest", vmin=0, vmax=255, cmap="gray")
            axes.set_xlabel(caption, fontsize=7.5, color=FAINT, family=FONT, labelpad=3)
    if title:
        write(figure, left, height - 0.2, title, size=11.5, bold=True, align="left")
    add_legend(figure, vocabulary)
    save_figure(figure, path)


def share_right(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the share of labelled pixels that are right, in percent; None when all are 255."""
    counted = truth != IGNORE_LABEL
    return 100 * float((prediction == truth)[counted].mean()) if counted.any() else None


def _cells(row: PanelRow, vocabulary: Vocabulary) -> dict[str, tuple[np.ndarray, str]]:
    cells: dict[str, tuple[np.ndarray, str]] = {}
    if row.optical is not None:
        cells["optical"] = (optical_to_rgb(row.optical), "")
    if row.sar_rgb is not None:
        cells["SAR"] = (row.sar_rgb, "")
    elif row.sar_db is not None:
        cells["SAR"] = (sar_to_rgb(row.sar_db), "")
    if row.cloud_alpha is not None:
        cover = f"{100 * float((row.cloud_alpha > COVERED_ALPHA).mean()):.0f}% cover"
        cells["cloud"] = ((255 * np.clip(row.cloud_alpha, 0, 1)).astype(np.uint8), cover)
    if row.truth is not None:
        cells["truth"] = (color_labels(row.truth, vocabulary.colors), "")
    for name, prediction in row.predictions.items():
        share = None if row.truth is None else share_right(prediction, row.truth)
        cells[name] = (color_labels(prediction, vocabulary.colors), "" if share is None else f"{share:.0f}% right")
    return cells


def _column_order(cells: Sequence[dict[str, tuple[np.ndarray, str]]]) -> list[str]:
    names = ["optical", "SAR", "cloud", "truth"]
    for line in cells:
        names += [name for name in line if name not in names]
    return names
