"""Curves with a spread, in panels side by side that share the vertical axis and one legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmovseg.visualization.figure import FAINT, FONT, INK, new_figure, place_axes, save_figure, write

_PANEL_IN, _HEIGHT_IN = 3.7, 2.9
_LEFT_IN, _GAP_IN, _TOP_IN, _AXIS_IN, _LINE_IN = 0.65, 0.35, 0.45, 0.6, 0.19
_GRID = "#e5e5ea"


@dataclass(frozen=True)
class Curve:
    """One line: `mean` over `x`, and a band from `low` to `high`; `style` as in matplotlib (``-``, ``--``, ``:``)."""

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    color: str
    style: str = "-"


@dataclass(frozen=True)
class CurvePanel:
    """One pair of axes."""

    title: str
    x_label: str
    curves: Sequence[Curve]


def draw_curves(panels: Sequence[CurvePanel], path: str | Path, *, y_label: str, note: str = "") -> None:
    """Draw panels side by side; the vertical axis starts at 0 and is the same for all.

    Args:
        panels: at least one, each with at least one curve. Equal labels are one entry of the legend.
        path: PNG file; the same curves give the same bytes.
        y_label: of the vertical axis.
        note: one line at the bottom.
    """
    if not panels or not all(panel.curves for panel in panels):
        raise ValueError("there is nothing to draw: give at least one panel, and each a curve")
    entries = {(curve.label, curve.color, curve.style): None for panel in panels for curve in panel.curves}
    columns = len(panels)
    legend_in = _LINE_IN * -(-len(entries) // columns) + (0.3 if note else 0.1)
    width = _LEFT_IN + columns * _PANEL_IN + (columns - 1) * _GAP_IN + 0.2
    height = _TOP_IN + _HEIGHT_IN + _AXIS_IN + legend_in
    figure = new_figure(width, height)
    top = max(max(curve.high) for panel in panels for curve in panel.curves)
    for number, panel in enumerate(panels):
        left = _LEFT_IN + number * (_PANEL_IN + _GAP_IN)
        axes = place_axes(figure, left, legend_in + _AXIS_IN, _PANEL_IN, _HEIGHT_IN)
        _draw_panel(axes, panel, top)
        if number == 0:
            axes.set_ylabel(y_label, fontsize=9, color=INK, family=FONT)
        else:
            axes.tick_params(labelleft=False)
        write(figure, left, height - _TOP_IN / 2, panel.title, size=10, bold=True, align="left")
    figure.legend(
        [Line2D([], [], color=color, linestyle=style, linewidth=1.8) for _, color, style in entries],
        [label for label, _, _ in entries],
        loc="lower center",
        bbox_to_anchor=(0.5, (0.25 if note else 0.05) / height),
        ncols=columns,
        frameon=False,
        prop={"family": FONT, "size": 8.5},
        labelcolor=INK,
        handlelength=2.6,
        columnspacing=2.0,
        borderaxespad=0,
    )
    write(figure, width / 2, 0.12, note, size=7.5, color=FAINT)
    save_figure(figure, path)


def _draw_panel(axes: Axes, panel: CurvePanel, top: float) -> None:
    for curve in panel.curves:
        axes.fill_between(curve.x, curve.low, curve.high, color=curve.color, alpha=0.13, linewidth=0)
        axes.plot(curve.x, curve.mean, color=curve.color, linestyle=curve.style, linewidth=1.8, solid_capstyle="round")
    ends = [value for curve in panel.curves for value in (min(curve.x), max(curve.x))]
    axes.set_xlim(min(ends), max(ends))
    axes.set_ylim(0, 1.08 * top)
    axes.xaxis.set_major_locator(_ticks())
    axes.yaxis.set_major_locator(_ticks())
    axes.grid(True, color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=FAINT, pad=4)
    axes.set_xlabel(panel.x_label, fontsize=9, color=INK, family=FONT, labelpad=6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _ticks() -> MaxNLocator:
    return MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10])
