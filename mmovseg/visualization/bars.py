"""Bars of single classes, one panel a setting: seen classes purple, unseen ones blue and underlined (Figure 3)."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

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

SEEN_COLOR, UNSEEN_COLOR = "#8a63b8", "#3b82d6"
_GRID = "#e5e5ea"
_PITCH_IN, _HEIGHT_IN, _NARROWEST_IN = 0.46, 1.9, 2.6
_LEFT_IN, _GAP_IN, _LINE_IN, _LEGEND_IN = 0.62, 0.3, 0.18, 0.55
_LETTER_IN, _TITLE_LETTER_IN = 0.072, 0.092  # width of a letter of a class name and of a title, on average


@dataclass(frozen=True)
class ClassBar:
    """One class; `values`: percent, one a seed, none where the class has no pixel."""

    name: str
    seen: bool
    values: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean over seeds, 0 without a value."""
        return statistics.mean(self.values) if self.values else 0.0

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds, 0 for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class BarPanel:
    """The classes of one setting, in the order in which they are drawn."""

    title: str
    bars: Sequence[ClassBar]


def draw_class_bars(
    panels: Sequence[BarPanel], path: str | Path, *, columns: int = 3, y_label: str = "IoU, %", note: str = ""
) -> None:
    """Draw panels in rows; all have the same vertical axis from 0, and a number over each bar.

    Args:
        panels: at least one, each with at least one class.
        path: PNG file; the same panels give the same bytes.
        columns: panels in a row at most.
        y_label: of the vertical axis.
        note: one line at the bottom.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not panels or not all(panel.bars for panel in panels):
        raise ValueError("there is nothing to draw: give at least one panel, and each a class")
    columns = max(1, min(columns, len(panels)))
    rows = -(-len(panels) // columns)
    panel_width = max(_NARROWEST_IN, _PITCH_IN * max(len(panel.bars) for panel in panels))
    names_in = 0.2 + _LETTER_IN * max(len(name) for panel in panels for name in wrapped([b.name for b in panel.bars]))
    titles = [textwrap.wrap(panel.title, max(8, int(panel_width / _TITLE_LETTER_IN))) for panel in panels]
    title_in = 0.2 + _LINE_IN * max(map(len, titles))
    row_height = title_in + _HEIGHT_IN + names_in
    width = _LEFT_IN + columns * panel_width + (columns - 1) * _GAP_IN + 0.15
    height = rows * row_height + _LEGEND_IN
    figure = new_figure(width, height)
    highest = max(bar.mean + bar.spread for panel in panels for bar in panel.bars)
    top = min(109.0, 10 * math.ceil(0.115 * highest + 0.1))  # room for the numbers, and not beyond 100 %
    names: list[Text] = []
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left = _LEFT_IN + column * (panel_width + _GAP_IN)
        bottom = height - (row + 1) * row_height + names_in
        axes = place_axes(figure, left, bottom, panel_width, _HEIGHT_IN)
        names += _draw_panel(axes, panel, top, max(len(other.bars) for other in panels))
        if column == 0:
            axes.set_ylabel(y_label, fontsize=9, color=INK, family=FONT)
        else:
            axes.tick_params(labelleft=False)
        for line, text in enumerate(reversed(titles[number])):
            write(figure, left, bottom + _HEIGHT_IN + 0.15 + line * _LINE_IN, text, size=9.5, bold=True, align="left")
    figure.legend(
        [Patch(facecolor=SEEN_COLOR), Patch(facecolor=UNSEEN_COLOR)],
        ["seen classes", "unseen classes (underlined)"],
        loc="lower center",
        bbox_to_anchor=(0.5, 0.22 / height),
        ncols=2,
        frameon=False,
        prop={"family": FONT, "size": 8.5},
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=2.0,
        borderaxespad=0,
    )
    write(figure, width / 2, 0.1, note, size=7.5, color=FAINT)
    figure.canvas.draw()
    underline(figure, names)
    save_figure(figure, path)


def _draw_panel(axes: Axes, panel: BarPanel, top: float, slots: int) -> list[Text]:
    """Draw the bars of a panel; return the names to be underlined."""
    positions = range(len(panel.bars))
    axes.bar(
        positions,
        [bar.mean for bar in panel.bars],
        width=0.72,
        color=[SEEN_COLOR if bar.seen else UNSEEN_COLOR for bar in panel.bars],
        zorder=2,
    )
    for position, bar in zip(positions, panel.bars, strict=True):
        low, high = max(0.0, bar.mean - bar.spread), bar.mean + bar.spread
        if bar.spread:
            axes.plot([position, position], [low, high], color=INK, linewidth=1.1, zorder=3)
        text = f"{bar.mean:.0f}" if bar.values else "–"
        axes.text(position, high + 0.015 * top, text, ha="center", va="bottom", fontsize=8, color=INK, family=FONT)
    axes.set_xlim(-0.6, slots - 0.4)  # bars are equally wide in all panels
    axes.set_ylim(0, top)
    names = wrapped([bar.name for bar in panel.bars])
    axes.set_xticks(positions, names, rotation=90, fontsize=8.5, family=FONT, color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(True, axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=4)
    axes.tick_params(axis="y", labelsize=8.5, labelcolor=FAINT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return [text for text, bar in zip(axes.get_xticklabels(), panel.bars, strict=True) if not bar.seen]
