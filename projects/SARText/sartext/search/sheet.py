"""A contact sheet: each query with the pictures that were found, their ranks, scores and captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmovseg.atomic import atomic_write
from mmovseg.errors import UserError
from mmovseg.projects.sartext.search.files import readable
from mmovseg.projects.sartext.search.queries import Match, Query

THUMB_PX = 150
_GAP_PX, _LINE_PX, _COLUMNS, _LINES = 10, 15, 6, 3
_FONT_PX = 12
_QUERIES, _PICTURES = 20, 240  # more would make a picture that no viewer opens
_INK, _FAINT, _PAPER, _HOLE = (20, 20, 20), (110, 110, 110), (255, 255, 255), (225, 225, 225)

Show = Callable[[str], np.ndarray]
"""Path of an image -> picture (H, W, 3) uint8."""


def drawn_part(queries: int, answers: int) -> tuple[int, int]:
    """Return of how many queries, and how many answers of each, a sheet shows.

    Args:
        queries: that there are.
        answers: the most that one of them has.
    """
    shown = min(queries, _QUERIES)
    return shown, min(answers, _PICTURES // max(1, shown))


def draw_sheet(
    path: str | Path, queries: Sequence[Query], answers: Sequence[Sequence[Match]], *, folder: str | Path, show: Show
) -> None:
    """Draw a sheet of the first queries and their first answers (`drawn_part`) as PNG.

    Each query is a heading, or its picture and a heading, over rows of six pictures. A picture that cannot be read
    any more is a grey square that says so.

    Args:
        path: of the PNG.
        queries: Q of them.
        answers: theirs.
        folder: that the paths of the answers start from.
        show: reads a picture.

    Raises:
        UserError: the file cannot be written.
    """
    shown, most = drawn_part(len(queries), max(len(found) for found in answers))
    blocks = [
        _draw_query(query, found[:most], Path(folder), show)
        for query, found in zip(queries[:shown], answers[:shown], strict=True)
    ]
    width = max(block.width for block in blocks)
    height = sum(block.height for block in blocks)
    sheet = Image.new("RGB", (width, height), _PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")


def _draw_query(query: Query, found: Sequence[Match], folder: Path, show: Show) -> Image.Image:
    cell_height = THUMB_PX + _LINE_PX * (2 + _LINES * any(match.captions for match in found)) + _GAP_PX
    head = 2 * _GAP_PX + _LINE_PX + (THUMB_PX + _GAP_PX if query.image else 0)
    rows = -(-len(found) // _COLUMNS)
    block = Image.new("RGB", (_GAP_PX + _COLUMNS * (THUMB_PX + _GAP_PX), head + rows * cell_height), _PAPER)
    draw = ImageDraw.Draw(block)
    block_width = block.width - 2 * _GAP_PX
    draw.line((_GAP_PX, 2, block.width - _GAP_PX, 2), fill=_HOLE)
    what = f'"{query.text}"' if query.text else f"like {query.label}"
    draw.text((_GAP_PX, _GAP_PX), _fit(what, block_width, 15), fill=_INK, font=_font(15))
    if query.image:
        block.paste(_thumbnail(query.image, show), (_GAP_PX, 2 * _GAP_PX + _LINE_PX))
    for number, match in enumerate(found):
        left = _GAP_PX + (number % _COLUMNS) * (THUMB_PX + _GAP_PX)
        top = head + (number // _COLUMNS) * cell_height
        block.paste(_thumbnail(str(folder / match.path), show), (left, top))
        below = top + THUMB_PX + 2
        draw.text((left, below), f"{match.rank}   {match.score:.3f}", fill=_INK, font=_font())
        name = _fit(readable(Path(match.path).name), THUMB_PX, _FONT_PX)
        draw.text((left, below + _LINE_PX), name, fill=_FAINT, font=_font())
        for line, text in enumerate(_wrap(match.captions[0])[:_LINES] if match.captions else ()):
            draw.text((left, below + (2 + line) * _LINE_PX), text, fill=_INK, font=_font())
    return block


def _thumbnail(path: str, show: Show) -> Image.Image:
    """Return a square with the whole picture in it, its sides in proportion."""
    square = Image.new("RGB", (THUMB_PX, THUMB_PX), _HOLE)
    try:
        picture = Image.fromarray(show(path))
    except UserError:
        ImageDraw.Draw(square).text((_GAP_PX, THUMB_PX // 2), "cannot be read", fill=_INK, font=_font())
        return square
    scale = THUMB_PX / max(picture.size)
    # Small pictures are enlarged without smoothing, so that their pixels are seen as they are.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, how)
    square.paste(small, ((THUMB_PX - small.width) // 2, (THUMB_PX - small.height) // 2))
    return square


def _font(size: int = _FONT_PX) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fit(text: str, width: int, size: int) -> str:
    """Cut a text to a width, in the middle, where names differ least."""
    if _font(size).getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 4 and _font(size).getlength(_shorten(text, keep)) > width:
        keep -= 1
    return _shorten(text, keep)


def _shorten(text: str, keep: int) -> str:
    tail = keep * 2 // 3
    return f"{text[: keep - tail]}...{text[-tail:]}"


def _wrap(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font().getlength(longer) <= THUMB_PX or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
