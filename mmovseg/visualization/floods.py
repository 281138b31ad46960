"""Picture of a flood product: both dates, the map over the later one, and a legend with hectares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from mmovseg.data.sar import SarUnit
from mmovseg.visualization.draw import color_labels, optical_to_rgb, overlay, sar_to_rgb
from mmovseg.visualization.figure import FAINT, FONT, new_figure, place_axes, save_figure, write

_LONG_SIDE_IN = 3.4
_GAP_IN = 0.12


def show_date(optical: np.ndarray | None, sar: np.ndarray | None, *, sar_unit: SarUnit) -> np.ndarray:
    """Return (H, W, 3) uint8 of one date: the optical image, or without one the last band of SAR.

    Args:
        optical: (H, W, 3) on the 0..255 scale, or None.
        sar: (H, W, P) in `sar_unit`, or None.
        sar_unit: unit of `sar`.

    Raises:
        ValueError: neither is given.
    """
    if optical is not None:
        return optical_to_rgb(optical)
    if sar is None:
        raise ValueError("a date needs an optical or a SAR image")
    return sar_to_rgb(sar[..., -1:], unit=sar_unit)


def draw_flood(
    path: str | Path,
    product: np.ndarray,
    *,
    before: np.ndarray | None,
    after: np.ndarray,
    classes: Mapping[int, tuple[str, tuple[int, int, int]]],
    hectares: Mapping[str, float],
    bare: Sequence[int] = (0,),
) -> None:
    """Draw before, after and the map laid over after, side by side, with a legend.

    Args:
        path: PNG file; the same arguments give the same bytes.
        product: (H, W) values of `classes`.
        before, after: (H, W, 3) uint8, see `show_date`; None leaves the column out.
        classes: value -> name and RGB.
        hectares: name -> area; a name without one is shown without.
        bare: values whose ground is left uncovered.
    """
    colors = [(0, 0, 0)] * 256
    for value, (_, color) in classes.items():
        colors[value] = color
    painted = overlay(after, color_labels(product, colors), 0.6)
    shown = np.where(np.isin(product, list(bare))[..., None], after, painted)
    columns = [("before", before)] if before is not None else []
    columns += [("after", after), ("flood map", shown)]
    scale = _LONG_SIDE_IN / max(product.shape)
    height, width = (side * scale for side in product.shape)
    present = [value for value in classes if value in bare or (product == value).any()]
    bottom, top = 0.25 + 0.22 * len(present), 0.34
    figure = new_figure(2 * _GAP_IN + len(columns) * (width + _GAP_IN) - _GAP_IN, bottom + height + top)
    for index, (title, image) in enumerate(columns):
        left = _GAP_IN + index * (width + _GAP_IN)
        place_axes(figure, left, bottom, width, height).imshow(image, interpolation="nearest")
        write(figure, left + width / 2, bottom + height + top / 2, title, size=9.5, bold=True)
    handles, labels = [], []
    for value in present:
        name, color = classes[value]
        handles.append(Patch(facecolor=tuple(part / 255 for part in color), edgecolor=FAINT, linewidth=0.5))
        labels.append(f"{name}: {hectares[name]:,.1f} ha" if name in hectares else name)
    total = figure.get_size_inches()
    figure.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(_GAP_IN / total[0], 0.06 / total[1]),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        prop={"family": FONT, "size": 8.5},
    )
    save_figure(figure, path)
