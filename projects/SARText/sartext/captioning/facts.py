"""What captions can state: counts, places on a 3x3 grid, and how both are taken from pixels."""

from __future__ import annotations

from typing import Literal

MANY: Literal["more than ten"] = "more than ten"
SEVERAL: Literal["several"] = "several"
LARGEST_EXACT = 10
"""Counts are written out up to here; above it a caption says `MANY`."""

Count = int | Literal["more than ten", "several"] | None
"""What a caption says of a number: exact, `MANY`, `SEVERAL` (uncounted), or nothing."""

CELLS = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)
HALVES = ("left half", "right half", "top half", "bottom half")


def stated_count(count: int, *, is_complete: bool = True) -> Count:
    """Return how a caption puts a count; `SEVERAL` where a group was annotated without counting it."""
    if not is_complete:
        return SEVERAL
    return count if count <= LARGEST_EXACT else MANY


def cell_at(x: float, y: float, width: float, height: float) -> str:
    """Return the cell of the 3x3 grid that holds a point.

    Args:
        x: pixels from the left edge, 0 .. width.
        y: pixels from the top edge, 0 .. height.
        width: of the image, pixels.
        height: of the image, pixels.
    """
    column = min(max(int(3 * x / width), 0), 2)
    row = min(max(int(3 * y / height), 0), 2)
    return CELLS[row][column]
