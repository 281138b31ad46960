"""Near copies in a data set: one chip cropped or stored anew, which must not lie on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from mmovseg.errors import UserError

_SIDE_PX = 32  # coarse enough that a shift by a pixel or another compression changes little


@lru_cache(maxsize=64)
def copy_groups(files: tuple[Path, ...], above: float) -> tuple[int, ...]:
    """Return a number for every image, the same for images that are copies of one another.

    Two images are copies when their grey values at 32 x 32 pixels correlate by more than `above`; copies of copies are
    copies too. Of SAR-ACD's chips of one class nearly every correlation is below 0.8 or above 0.98.

    Args:
        files: pictures.
        above: Pearson's correlation, 0..1.

    Raises:
        UserError: a file is no picture.
    """
    thumbnails = np.stack([_thumbnail(file) for file in files])
    alike = thumbnails @ thumbnails.T > above
    np.fill_diagonal(alike, True)  # an image of one grey value is a copy of itself only
    groups = np.arange(len(files))
    while True:
        spread = np.where(alike, groups[None, :], len(files)).min(axis=1)
        if (spread == groups).all():
            return tuple(int(group) for group in groups)
        groups = spread


def without_torn_groups(groups: Sequence[int], count: int, rng: np.random.Generator) -> set[int]:
    """Choose about `count` of the items, whole groups only.

    Args:
        groups: number of each item's group.
        count: most that are chosen.
        rng: of the order in which groups are taken, as long as they fit.

    Returns:
        Positions.
    """
    numbers = np.asarray(groups)
    chosen: set[int] = set()
    for group in rng.permutation(np.unique(numbers)):
        members = np.flatnonzero(numbers == group).tolist()
        if len(chosen) + len(members) <= count:
            chosen.update(members)
    return chosen


def _thumbnail(file: Path) -> np.ndarray:
    """Return the grey values less their mean, of length 1 (0 where they are all alike)."""
    try:
        with Image.open(file) as picture:
            small = np.asarray(picture.convert("L").resize((_SIDE_PX, _SIDE_PX)), dtype=np.float64).ravel()
    except (OSError, ValueError) as error:
        raise UserError(f"image '{file}' cannot be read to look for copies of it: {error}") from error
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    return small / length if length else small
