"""Objects in boxes, drawn by detectron2's `Visualizer`: one colour a category."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.utils.visualizer import Visualizer
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmovseg.visualization.figure import FONT, INK

BOX_COLORS = ("#ff3b30", "#34c7ff", "#ffcc00", "#34c759", "#ff2dd4", "#ff9500", "#af52de", "#ffffff")
"""Bright on images of any kind; from the ninth category on they come again."""


def box_color(category: int) -> str:
    """Return the colour of a category."""
    return BOX_COLORS[category % len(BOX_COLORS)]


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, categories: Sequence[int], *, margin_px: float = 1.0, min_width_px: int = 480
) -> np.ndarray:
    """Draw boxes over an image, enlarged by a whole factor if it is small.

    Args:
        image: (H, W, 3) uint8.
        boxes: (M, 4) x0, y0, x1, y1 in its pixels, ends exclusive.
        categories: M class ids.
        margin_px: how far outside its box a line runs, so that it hides nothing of an object of a few pixels.
        min_width_px: the picture gets at least this wide.

    Returns:
        (k * H, k * W, 3) uint8.
    """
    scale = max(1, -(-min_width_px // image.shape[1]))
    visualizer = Visualizer(image, scale=scale)
    for box, category in zip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), categories, strict=True):
        shown = box + np.array([-margin_px, -margin_px, margin_px, margin_px])
        visualizer.draw_box(shown, alpha=1.0, edge_color=box_color(category))
    drawn: np.ndarray = visualizer.get_output().get_image()
    return drawn


def add_box_legend(figure: Figure, names: Sequence[str]) -> None:
    """Say at the bottom of a figure which colour is which category."""
    handles = [Patch(facecolor="none", edgecolor=box_color(index), linewidth=1.6) for index in range(len(names))]
    figure.legend(
        handles,
        list(names),
        loc="lower center",
        bbox_to_anchor=(0.5, 0.06 / figure.get_figheight()),
        ncols=min(len(names), max(1, int(figure.get_figwidth() / 1.2))),
        frameon=False,
        prop={"family": FONT, "size": 9},
        labelcolor=INK,
    )
