"""A confusion matrix as a picture: rows sum to 100%, unseen classes underlined."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from mmovseg.visualization.figure import (
    FAINT,
    FONT,
    INK,
    new_figure,
    place_axes,
    save_figure,
    underline,
    wrapped,
    write,
)

_NUMBERS_UP_TO = 24


def draw_confusion(
    counts: np.ndarray,
    path: str | Path,
    *,
    row_names: Sequence[str],
    column_names: Sequence[str],
    unseen: Collection[str] = (),
    title: str = "",
    counted: str = "pixels",
) -> None:
    """Draw `counts` (G, P), each row divided by its sum; empty rows stay empty.

    Args:
        counts: pixels, or what `counted` says, by (true class, predicted class).
        path: PNG file.
        row_names: G label classes.
        column_names: P names that could be predicted.
        unseen: names to underline.
        title: one line above.
        counted: what `counts` counts, for the note under the title.
    """
    rows, columns = counts.shape
    sums = counts.sum(axis=1, keepdims=True)
    shares = 100 * counts / np.maximum(sums, 1)
    cell = 0.52 if max(rows, columns) <= _NUMBERS_UP_TO else 0.3
    longest = max(len(name) for name in wrapped([*row_names, *column_names]))
    left = bottom = 0.55 + 0.085 * longest
    right, top = 0.35, 0.75
    width, height = max(left + right + cell * columns, 4.2), bottom + top + cell * rows
    figure = new_figure(width, height)
    axes = place_axes(figure, left, bottom, cell * columns, cell * rows)
    axes.imshow(np.where(sums > 0, shares, np.nan), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(columns), wrapped(column_names), rotation=90, fontsize=8.5, family=FONT, color=INK)
    axes.set_yticks(range(rows), wrapped(row_names), fontsize=8.5, family=FONT, color=INK)
    axes.tick_params(length=0, pad=5)
    axes.set_xlabel("predicted", fontsize=8.5, color=FAINT, family=FONT, labelpad=8)
    axes.set_ylabel("ground truth", fontsize=8.5, color=FAINT, family=FONT, labelpad=8)
    for edge in range(1, max(rows, columns)):
        axes.axhline(edge - 0.5, color="white", linewidth=1) if edge < rows else None
        axes.axvline(edge - 0.5, color="white", linewidth=1) if edge < columns else None
    if max(rows, columns) <= _NUMBERS_UP_TO:
        for i, j in np.argwhere((counts > 0) & (sums > 0)):
            text = f"{shares[i, j]:.0f}" if shares[i, j] >= 0.5 else "·"
            color = "white" if shares[i, j] > 55 else INK
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color, family=FONT)
    write(figure, 0.15, height - 0.25, title, size=10, bold=True, align="left")
    note = f"% of the {counted} of each true class" + ("; underlined: unseen in training" if unseen else "")
    write(figure, 0.15, height - 0.5, note, size=8, color=FAINT, align="left")
    figure.canvas.draw()
    labels = [(text, name) for text, name in zip(axes.get_xticklabels(), column_names, strict=True)]
    labels += [(text, name) for text, name in zip(axes.get_yticklabels(), row_names, strict=True)]
    underline(figure, [text for text, name in labels if name in unseen])
    save_figure(figure, path)
