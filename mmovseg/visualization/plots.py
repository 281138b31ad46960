"""Looks that pictures of analyses share: colours, axes, a legend below."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmovseg.visualization.figure import FAINT, FONT, INK, write

# Okabe and Ito: eight colours that colour-blind eyes tell apart, without their yellow, which is too light for lines.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1c1c1e")
OPTICAL, SAR = "#0072b2", "#d55e00"
_GRID = "#e5e5ea"
LINE_IN = 0.2


def color_of(index: int) -> str:
    """Return the colour of the line with this number; they repeat after seven."""
    return COLORS[index % len(COLORS)]


def style_of(index: int) -> str:
    """Return the line style of the line with this number: solid for the first seven, then dashed, then dotted."""
    return ("-", "--", ":")[index // len(COLORS) % 3]


def plain_axes(
    figure: Figure, box_in: tuple[float, float, float, float], *, title: str, x_label: str, y_label: str = ""
) -> Axes:
    """Add axes with a grid, a title and labels; `box_in` is left, bottom, width, height in inches."""
    left, bottom, width, height = box_in
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.grid(True, color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=8.5, labelcolor=FAINT, pad=4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(linewidth=0.6, color="#c7c7cc")
    axes.set_xlabel(x_label, fontsize=9, color=INK, family=FONT, labelpad=5)
    axes.set_ylabel(y_label, fontsize=9, color=INK, family=FONT)
    write(figure, left, bottom + height + 0.18, title, size=10, bold=True, align="left")
    return axes


def legend_below(figure: Figure, labels: Sequence[str], *, y_in: float, columns: int) -> None:
    """Put one line and label for each of `labels` at the bottom, in the colours of `color_of`."""
    handles = [
        Line2D([], [], color=color_of(index), linestyle=style_of(index), linewidth=1.8) for index in range(len(labels))
    ]
    figure.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, y_in / figure.get_figheight()),
        ncols=columns,
        frameon=False,
        prop={"family": FONT, "size": 8.5},
        labelcolor=INK,
        handlelength=2.6,
        columnspacing=2.0,
        borderaxespad=0,
    )


def note_below(figure: Figure, text: str) -> None:
    """Write one line at the very bottom."""
    write(figure, figure.get_figwidth() / 2, 0.13, text, size=7.5, color=FAINT)
