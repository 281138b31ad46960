"""A mapped scene as one picture, made from few pixels of it, however large it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
from rasterio.enums import Resampling

from mmovseg.data.sar import SarUnit
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.inference.scene.layers import QUALITY, SCORE_NODATA, SCORE_SCALE, Layer
from mmovseg.inference.scene.rasters import ScenePair, WindowData
from mmovseg.visualization.draw import color_labels, optical_to_rgb, sar_to_rgb
from mmovseg.visualization.scenes import RGB, draw_scene

_LONG_SIDE_PX = 640
_ROWS_AT_ONCE = 8  # of the picture, so that little of a large scene is in memory


def check_drawable(vocabulary: Vocabulary) -> None:
    """Refuse what could not be drawn.

    Raises:
        UserError: there are more classes than colours.
    """
    if len(vocabulary) >= SCORE_NODATA:
        raise UserError(
            f"--picture tells at most {SCORE_NODATA - 1} classes apart, but {len(vocabulary)} are asked for"
        )


def draw_map(
    path: str | Path,
    pair: ScenePair,
    layers: Sequence[tuple[Layer, Path]],
    vocabulary: Vocabulary,
    *,
    hectares: Mapping[str, float | None],
    sar_unit: SarUnit,
    tags: Mapping[str, str],
) -> None:
    """Draw the rasters of a scene beside its layers.

    Args:
        path: PNG file.
        pair: open rasters.
        layers: with their finished files, labels first.
        vocabulary: the classes.
        hectares: class name -> area, None where areas are unknown.
        sar_unit: of what `pair` reads.
        tags: of the file.

    Raises:
        UserError: a raster cannot be read.
    """
    size = _picture_size(pair.grid.height, pair.grid.width)
    panels: list[tuple[str, np.ndarray]] = []
    seen = _shrink(pair, size)
    if seen.optical is not None:
        panels.append(("optical", optical_to_rgb(seen.optical, seen.optical_valid)))
    if seen.sar is not None:
        panels.append(("SAR", sar_to_rgb(seen.sar, seen.sar_valid, unit=sar_unit)))
    names = {
        name if hectares.get(name) is None else f"{name}: {hectares[name]:,.0f} ha": color
        for name, color in zip(vocabulary.names, vocabulary.colors, strict=True)
    }
    legends: list[tuple[str, Mapping[str, RGB]]] = [("map", names)]
    for layer, file in layers:
        if layer.name == "labels":
            panels.append(("map", color_labels(_read(file, size, Resampling.mode), vocabulary.colors)))
        elif layer.name == "quality":
            colors = {value: color[:3] for value, (_, color) in QUALITY.items()}
            panels.append(("sensors", color_labels(_read(file, size, Resampling.mode), list(colors.values()))))
            legends.append(("sensors", {QUALITY[value][0]: color for value, color in colors.items()}))
        elif layer.name == "confidence":
            panels.append(("confidence", _grey(_read(file, size, Resampling.average))))
            legends.append(("confidence", {f"{share} %": (round(2.55 * share),) * 3 for share in (20, 60, 100)}))
    draw_scene(path, panels, legends, tags=tags)


def _picture_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, _LONG_SIDE_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _shrink(pair: ScenePair, size: tuple[int, int]) -> WindowData:
    """Read the whole scene at `size`, some rows at a time."""
    parts: list[WindowData] = []
    for top in range(0, size[0], _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, size[0])
        first, last = (row * pair.grid.height // size[0] for row in (top, bottom))
        parts.append(pair.read(first, 0, last - first, pair.grid.width, out_shape=(bottom - top, size[1])))

    def join(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate(found)

    return WindowData(join("optical"), join("optical_valid"), join("sar"), join("sar_valid"), None)


def _read(path: Path, size: tuple[int, int], resampling: Resampling) -> np.ndarray:
    with rasterio.open(path) as source:
        return cast(np.ndarray, source.read(1, out_shape=size, resampling=resampling))


def _grey(stored: np.ndarray) -> np.ndarray:
    share = np.where(stored == SCORE_NODATA, 1.0, stored * SCORE_SCALE)
    return np.repeat((255 * share).round().astype(np.uint8)[..., None], 3, axis=-1)
