"""What the page shows of an answer: pictures of a comfortable size, and the legend as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.visualization.draw import color_labels, overlay

SMALLEST_VIEW_PX, LARGEST_VIEW_PX = 512, 1024
OPACITY = 0.55


@dataclass(frozen=True)
class Share:
    """What one class got.

    pixels: of the map. hectares: None where the raster does not say how large its pixels are. truth: fraction of the
    image that the class really covers, 0..1; None where nobody knows.
    """

    pixels: int
    hectares: float | None = None
    truth: float | None = None


def view_shape(height: int, width: int) -> tuple[int, int]:
    """Return the size at which a raster is shown, at most `LARGEST_VIEW_PX` a side, never enlarged."""
    scale = min(1.0, LARGEST_VIEW_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def enlarge(image: np.ndarray) -> np.ndarray:
    """Repeat the pixels of a small (H, W, 3) image, so that a browser does not smooth them away."""
    factor = max(1, SMALLEST_VIEW_PX // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def shrink_labels(labels: np.ndarray) -> np.ndarray:
    """Return every n-th pixel of (H, W) labels: the size of `view_shape`, no value that was not there."""
    shape = view_shape(*labels.shape)
    rows, columns = (
        np.linspace(0, old - 1, new).round().astype(int) for old, new in zip(labels.shape, shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def prediction_views(base: np.ndarray, labels: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the map over an image and the map alone.

    Args:
        base: (H, W, 3) uint8.
        labels: (H, W), positions in `vocabulary`, 255 = no data, which is left as `base` shows it, or white.
        vocabulary: at most 255 classes.
    """
    plain = color_labels(labels, vocabulary.colors)
    over = np.where((labels == IGNORE_LABEL)[..., None], base, overlay(base, plain, OPACITY))
    return over, plain


def legend_html(vocabulary: Vocabulary, shares: Sequence[Share]) -> str:
    """Return the legend: colour, name, share of the mapped pixels as bar and number, true share and hectares if known.

    Names are text that somebody typed and come out escaped.
    """
    total = max(1, sum(share.pixels for share in shares))
    with_truth = any(share.truth is not None for share in shares)
    with_area = all(share.hectares is not None for share in shares)
    rows = []
    for entry, share in zip(vocabulary.classes, shares, strict=True):
        percent = 100 * share.pixels / total
        color = "#{:02x}{:02x}{:02x}".format(*entry.color)
        name = html.escape(entry.name)
        mark = "" if entry.seen else " <span class='unseen' title='never labelled in training'>unseen</span>"
        cells = [
            f"<td class='key'><span class='swatch' style='background:{color}'></span></td>",
            f"<td class='name'>{name}{mark}</td>",
            f"<td class='bar'><span style='width:{percent:.1f}%;background:{color}'></span></td>",
            f"<td class='num'>{percent:.1f} %</td>",
        ]
        if with_truth:
            cells.append(f"<td class='num'>{'' if share.truth is None else f'{100 * share.truth:.1f} %'}</td>")
        if with_area:
            cells.append(f"<td class='num'>{_hectares(share.hectares)}</td>")
        rows.append(f"<tr data-name='{name}' data-percent='{percent:.1f}'>{''.join(cells)}</tr>")
    titles = ["", "class", "", "share", *["true share"] * with_truth, *["hectares"] * with_area]
    head = "".join(f"<th class='{'num' if index > 2 else 'text'}'>{title}</th>" for index, title in enumerate(titles))
    return f"<table class='legend'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def message_html(text: str, *, is_error: bool = False) -> str:
    """Return one line below the button; the text is escaped and begins with a capital."""
    kind, role = ("error", "alert") if is_error else ("note", "status")
    return f"<div class='message {kind}' role='{role}'>{html.escape(text[:1].upper() + text[1:])}</div>"


def _hectares(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
