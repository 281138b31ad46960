"""Cut scenes into tiles of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmovseg.errors import UserError

EdgeRule = Literal["shift", "drop"]


@dataclass(frozen=True)
class Tile:
    """A window of a scene, pixels: `row`, `col` of its upper left corner, `height`, `width`."""

    row: int
    col: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """Suffix for a file stem: ``r00512_c00000``."""
        return f"r{self.row:05d}_c{self.col:05d}"


def tile_grid(height: int, width: int, size: int, *, stride: int | None = None, edge: EdgeRule = "shift") -> list[Tile]:
    """Return the square tiles that cover a scene, row by row.

    Args:
        height: of the scene, pixels.
        width: of the scene, pixels.
        size: side of a tile, pixels.
        stride: step between tiles; None = `size`, without overlap.
        edge: what happens where the tiles do not fit: ``shift`` moves the last row and column back into the scene (they
            overlap their neighbours, every pixel is kept), ``drop`` leaves the rest of the scene out.

    Raises:
        UserError: a scene smaller than a tile, or a size or stride below 1.
    """
    stride = size if stride is None else stride
    if size < 1 or stride < 1:
        raise UserError(f"tile size and stride must be at least 1, got {size} and {stride}")
    if height < size or width < size:
        raise UserError(f"a scene of {height}x{width} pixels (height x width) is smaller than a tile of {size}")
    rows, cols = _starts(height, size, stride, edge), _starts(width, size, stride, edge)
    return [Tile(row, col, size, size) for row in rows for col in cols]


def _starts(length: int, size: int, stride: int, edge: EdgeRule) -> list[int]:
    starts = list(range(0, length - size + 1, stride))
    if edge == "shift" and starts[-1] + size < length:
        starts.append(length - size)
    return starts
