"""The few matplotlib habits that all pictures share: no global state, no timestamps, whole files, underlined names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from mmovseg.checkpoint.save import atomic_write
from mmovseg.data.vocabulary import Vocabulary

INK = "#1c1c1e"
FAINT = "#6e6e73"
DPI = 150
FONT = "DejaVu Sans"  # ships with matplotlib, so pictures are the same everywhere


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty white figure on the Agg canvas; no display and no pyplot state is involved."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path, *, tags: Mapping[str, str] | None = None) -> None:
    """Write a PNG atomically. The same figure gives the same bytes: nothing is stored beside it but `tags`."""
    with atomic_write(Path(path).with_suffix(".png")) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None, **(tags or {})}, format="png")


def place_axes(figure: Figure, x_in: float, y_in: float, width_in: float, height_in: float) -> Axes:
    """Add axes without ticks whose lower left corner and size are given in inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x_in / width, y_in / height, width_in / width, height_in / height))
    bare_axes(axes)
    return axes


def write(
    figure: Figure,
    x_in: float,
    y_in: float,
    text: str,
    *,
    size: float,
    color: str = INK,
    bold: bool = False,
    align: Literal["left", "center", "right"] = "center",
    rotation: float = 0,
) -> Text:
    """Write text at inches from the lower left corner, vertically centred there."""
    width, height = figure.get_size_inches()
    style: dict[str, Any] = {"size": size, "color": color, "family": FONT, "weight": "bold" if bold else "normal"}
    return figure.text(x_in / width, y_in / height, text, ha=align, va="center", rotation=rotation, **style)


def bare_axes(axes: Axes) -> None:
    """Leave a hairline frame only: no ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, color="#c7c7cc")


def underline(figure: Figure, texts: Iterable[Text], *, offset_px: float = 1.0) -> None:
    """Draw a line under texts (matplotlib has no such font style). Call it when the layout is final."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    to_figure = figure.transFigure.inverted()
    for text in texts:
        box = text.get_window_extent(renderer)
        vertical = text.get_rotation() in (90.0, 270.0)
        ends = (
            [(box.x1 + offset_px, box.y0), (box.x1 + offset_px, box.y1)]
            if vertical
            else [
                (box.x0, box.y0 - offset_px),
                (box.x1, box.y0 - offset_px),
            ]
        )
        (x0, y0), (x1, y1) = to_figure.transform(ends)
        figure.add_artist(Line2D([x0, x1], [y0, y1], color=text.get_color(), linewidth=0.9))


def add_legend(figure: Figure, vocabulary: Vocabulary, *, columns: int | None = None, note: str | None = None) -> None:
    """Put a colour legend at the bottom, unseen classes underlined, with a note that says what the line means."""
    colors = [[channel / 255 for channel in color] for color in vocabulary.colors]
    handles = [Patch(facecolor=color, edgecolor="#8e8e93", linewidth=0.5) for color in colors]
    legend = figure.legend(
        handles,
        vocabulary.names,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.22 / figure.get_figheight()),
        ncols=columns or _legend_columns(vocabulary.names, figure.get_figwidth()),
        frameon=False,
        prop={"family": FONT, "size": 9},
        labelcolor=INK,
        handlelength=1.3,
        handleheight=1.1,
        columnspacing=1.6,
        borderaxespad=0,
    )
    if note is None:
        note = "underlined: classes the model never saw a label of" if vocabulary.unseen_ids else ""
    write(figure, figure.get_figwidth() / 2, 0.09, note, size=7.5, color=FAINT)
    figure.canvas.draw()
    underline(figure, [legend.get_texts()[i] for i in vocabulary.unseen_ids])


def legend_height_in(vocabulary: Vocabulary, width_in: float) -> float:
    """Return how many inches at the bottom `add_legend` needs on a figure of this width."""
    return 0.38 + 0.22 * -(-len(vocabulary) // _legend_columns(vocabulary.names, width_in))


def _legend_columns(names: Sequence[str], width_in: float) -> int:
    """Return how many columns of names fit; a patch with its spaces takes 0.46 inches, a letter about 0.068."""
    for columns in range(min(len(names), max(1, int(width_in / 1.15))), 1, -1):
        longest = [max(map(len, column)) for column in np.array_split(np.array(names, dtype=object), columns)]
        if sum(0.46 + 0.068 * letters for letters in longest) <= width_in:
            return columns
    return 1


def wrapped(names: Sequence[str], limit: int = 24) -> list[str]:
    """Return names cut to `limit` characters, with an ellipsis where something was cut."""
    return [name if len(name) <= limit else f"{name[: limit - 1]}…" for name in names]
