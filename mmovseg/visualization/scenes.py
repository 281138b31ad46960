"""Picture of a mapped scene at a glance: rasters, map, and who saw the ground, with hectares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from mmovseg.visualization.figure import FAINT, FONT, new_figure, place_axes, save_figure, write

RGB = tuple[int, int, int]

_LONG_SIDE_IN = 3.2
_GAP_IN = 0.12


def draw_scene(
    path: str | Path,
    panels: Sequence[tuple[str, np.ndarray]],
    legends: Sequence[tuple[str, Mapping[str, RGB]]],
    *,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Draw images of one size side by side, with legends below them.

    Args:
        path: PNG file; the same arguments give the same bytes.
        panels: title and (H, W, 3) uint8 image of each.
        legends: title of the panel that each belongs to, and name -> RGB of its entries.
        tags: stored in the file.
    """
    height_px, width_px = panels[0][1].shape[:2]
    scale = _LONG_SIDE_IN / max(height_px, width_px)
    height, width = height_px * scale, width_px * scale
    longest = max((len(entries) for _, entries in legends), default=0)
    bottom, top = 0.25 + 0.2 * longest, 0.34
    figure = new_figure(_GAP_IN + len(panels) * (width + _GAP_IN), bottom + height + top)
    for index, (title, image) in enumerate(panels):
        left = _GAP_IN + index * (width + _GAP_IN)
        place_axes(figure, left, bottom, width, height).imshow(image, interpolation="nearest")
        write(figure, left + width / 2, bottom + height + top / 2, title, size=9.5, bold=True)
    total_width, total_height = figure.get_size_inches()
    places = {title: _GAP_IN + index * (width + _GAP_IN) for index, (title, _) in enumerate(panels)}
    for heading, entries in legends:
        figure.legend(
            [
                Patch(facecolor=[part / 255 for part in color], edgecolor=FAINT, linewidth=0.5)
                for color in entries.values()
            ],
            list(entries),
            loc="upper left",
            bbox_to_anchor=(places[heading] / total_width, (bottom - 0.08) / total_height),
            frameon=False,
            alignment="left",
            borderpad=0,
            borderaxespad=0,
            prop={"family": FONT, "size": 8.5},
        )
    save_figure(figure, path, tags=tags)
