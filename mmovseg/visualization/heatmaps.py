"""Where each stage of the fusion looks for a prompt, after Figure 5 of the MM-OVSeg paper.

Columns: the RGB and the SAR image; h_gt, similarity of the global CLIP features with the prompt; h_dt, similarity of
the fused dense (optical + SAR) features; h_fuse, both joined; with the head of the release, this after attention among
places and classes; and the final score. Rows: prompts, seen and unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Text

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.visualization.draw import normalize_map, optical_to_rgb, overlay
from mmovseg.visualization.figure import FAINT, new_figure, place_axes, save_figure, underline, write

STAGES: tuple[tuple[str, str, str], ...] = (
    ("global_similarity", "$h_{gt}$", "global CLIP"),
    ("dense_similarity", "$h_{dt}$", "dense optical + SAR"),
    ("fused", "$h_{fuse}$", "both joined"),
    ("aggregated", "$h_{agg}$", "after attention"),
    ("scores", "score", "after the decoder"),
)
_PICTURES = {"image": ("RGB", "as the model sees it"), "sar": ("SAR", "as the model sees it")}
_CELL_IN = 1.5
_GAP_IN = 0.07


@dataclass
class HeatmapScene:
    """One scene and the prompts to draw for it.

    image: (H, W, 3) on the 0..255 scale, as the model saw it; None when it saw SAR alone.
    maps: stage -> (K, h, w) of any range and size, K in the order of the vocabulary.
    prompts: indices of the classes to draw.
    truth: labels of the same ground, of any size; the class is outlined where it is given.
    sar: (H, W, 3) uint8, SAR in display colours; None leaves its cell empty.
    """

    image: np.ndarray | None
    maps: Mapping[str, np.ndarray]
    prompts: Sequence[int]
    truth: np.ndarray | None = None
    sar: np.ndarray | None = None

    @property
    def background(self) -> np.ndarray:
        """(H, W, 3) uint8 under the maps: the image, or SAR where there is none."""
        if self.image is not None:
            return optical_to_rgb(self.image)
        if self.sar is None:
            raise ValueError("a scene needs an image or SAR to be drawn")
        return self.sar


def draw_heatmaps(
    scenes: Sequence[HeatmapScene],
    path: str | Path,
    *,
    vocabulary: Vocabulary,
    title: str = "",
    against_others: bool = True,
) -> None:
    """Draw one row for each prompt of each scene, one column for each image and each stage that any scene has.

    Each map is normalised by itself (1st to 99th percentile), so colours compare places within a map, not maps. The
    white line is the outline of the class in the ground truth. Prompts that training never saw are underlined.

    Args:
        scenes: what to draw.
        path: PNG file; the same scenes give the same bytes.
        vocabulary: names and the seen/unseen marks of the prompts.
        title: one line above everything.
        against_others: subtract the mean over all prompts at each place. What all prompts share there does not decide
            which of them wins, and in CLIP it outweighs what sets them apart, so that all raw maps look alike.
    """
    stages = [stage for stage in STAGES if any(stage[0] in scene.maps for scene in scenes)]
    count = sum(len(scene.prompts) for scene in scenes)
    if not count or not stages:
        raise ValueError("nothing to draw: no prompts or no maps")
    left, right, top, bottom, between = 1.15, 0.12, 0.55 + (0.34 if title else 0), 0.34, 0.14
    step = _CELL_IN + _GAP_IN
    pictures = [name for name in ("image", "sar") if any(getattr(scene, name) is not None for scene in scenes)]
    titles = [_PICTURES[name] for name in pictures] + [(stage[1], stage[2]) for stage in stages]
    columns = pictures + [stage[0] for stage in stages]
    width = left + right + step * len(columns) - _GAP_IN
    height = top + bottom + step * count + between * (len(scenes) - 1)
    figure = new_figure(width, height)
    for j, (head, sub) in enumerate(titles):
        x = left + j * step + _CELL_IN / 2
        write(figure, x, height - top + 0.31, head, size=10.5, bold=True)
        write(figure, x, height - top + 0.11, sub, size=7.5, color=FAINT)
    marked: list[Text] = []
    y = height - top
    for scene in scenes:
        for k in scene.prompts:
            y -= step
            entry = vocabulary.classes[k]
            label = write(figure, left - 0.12, y + _CELL_IN / 2, entry.name, size=10, align="right")
            if not entry.seen:
                marked.append(label)
            _draw_row(figure, scene, k, columns, left, y, against_others)
        y -= between
    if title:
        write(figure, 0.15, height - 0.2, title, size=11.5, bold=True, align="left")
    compared = against_others and len(vocabulary) > 1
    notes = ["response against the mean of all prompts" if compared else "response", "each map stretched by itself"]
    outlined = any(scene.truth is not None for scene in scenes)
    marks = (("outline: ground truth", outlined), ("underlined: classes unseen in training", bool(marked)))
    note = "; ".join([", ".join(notes), *(text for text, shown in marks if shown)])
    write(figure, width / 2, 0.15, note, size=7.5, color=FAINT)
    figure.canvas.draw()
    underline(figure, marked)
    save_figure(figure, path)


def heat_overlay(image: np.ndarray, values: np.ndarray, opacity: float = 0.78) -> np.ndarray:
    """Lay a (h, w) map of any range over a grey (H, W, 3) uint8 image; returns (H, W, 3) uint8."""
    import cv2  # only pictures need it

    size = image.shape[1], image.shape[0]
    heat = cv2.resize(normalize_map(values.astype(np.float32)), size, interpolation=cv2.INTER_LINEAR)
    grey = np.repeat(image.astype(np.float32).mean(axis=-1, keepdims=True), 3, axis=-1)
    return overlay(grey, 255 * colormaps["inferno"](heat)[..., :3], opacity)


def response(maps: np.ndarray, k: int, *, against_others: bool) -> np.ndarray:
    """Return map `k` of (K, h, w), less the mean over all K if asked and K is above 1."""
    return maps[k] - maps.mean(axis=0) if against_others and len(maps) > 1 else maps[k]


def _draw_row(
    figure: Figure, scene: HeatmapScene, k: int, columns: Sequence[str], left: float, y: float, against_others: bool
) -> None:
    background = scene.background
    inside = _inside(scene.truth, k, background)
    pictures = {"image": optical_to_rgb(scene.image) if scene.image is not None else None, "sar": scene.sar}
    for j, column in enumerate(columns):
        picture = pictures.get(column)
        if column in scene.maps:
            picture = heat_overlay(background, response(scene.maps[column], k, against_others=against_others))
        if picture is None:
            continue
        axes = place_axes(figure, left + j * (_CELL_IN + _GAP_IN), y, _CELL_IN, _CELL_IN)
        axes.imshow(picture, interpolation="nearest" if column in pictures else "bilinear")
        if column not in pictures and inside is not None:
            outline = axes.contour(inside, levels=[0.5], colors="white", linewidths=0.8)
            outline.set_path_effects([Stroke(linewidth=1.7, foreground="black"), Normal()])


def _inside(truth: np.ndarray | None, k: int, background: np.ndarray) -> np.ndarray | None:
    """(H, W) float of the background, 1 where the label is `k`; None where there is nothing to outline."""
    import cv2  # only pictures need it

    if truth is None:
        return None
    size = background.shape[1], background.shape[0]
    inside = cv2.resize((truth == k).astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    return inside if inside.any() and not inside.all() else None
