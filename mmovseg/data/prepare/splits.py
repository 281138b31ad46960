"""Which tile belongs to which split: published lists, or a seeded draw."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.data.text import read_text
from mmovseg.errors import UserError


def read_split_list(path: str | Path) -> list[str]:
    """Read a published list: one file name a line; folders and extensions are dropped, empty lines skipped.

    A line may also name all files of a pair, separated by blanks, if they have one stem.

    Returns:
        Stems in the order of the list.

    Raises:
        UserError: the list is missing or empty, or names a stem twice.
    """
    stems = [_stem(line) for line in read_text(path, "split list").splitlines() if line.strip()]
    if not stems:
        raise UserError(f"split list '{path}' names no file")
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise UserError(f"split list '{path}' names '{twice}' more than once")
    return stems


def split_stems(stems: Iterable[str], *, train_share: float = 0.5, seed: int = 0) -> dict[str, list[str]]:
    """Draw train and val, as `split_by_share` draws train and test; the number of train is rounded up."""
    train, val = split_by_share(stems, train_share=train_share, rounding="up", seed=seed).values()
    return {"train": train, "val": val}


def split_by_share(
    stems: Iterable[str], *, train_share: float = 0.8, rounding: Literal["up", "down"] = "down", seed: int = 0
) -> dict[str, list[str]]:
    """Draw train and test, independent of the order of the stems and of the machine.

    Args:
        stems: all, each once.
        train_share: share of train, 0..1.
        rounding: of the number of train.
        seed: of the draw.

    Returns:
        ``{"train": [...], "test": [...]}``, each sorted.

    Raises:
        UserError: `train_share` outside 0..1.
    """
    if not 0.0 <= train_share <= 1.0:
        raise UserError(f"the share of train must lie within 0..1, got {train_share}")
    drawn = sorted(stems, key=lambda stem: hashlib.sha256(f"{seed}/{stem}".encode()).digest())
    exact = len(drawn) * train_share
    # 0.8 has no exact binary form: without the margin 5 * 0.8 could be 4 or 5
    count = math.ceil(exact - 1e-9) if rounding == "up" else math.floor(exact + 1e-9)
    return {"train": sorted(drawn[:count]), "test": sorted(drawn[count:])}


def _stem(line: str) -> str:
    stems = {_name(word) for word in line.split()}
    return stems.pop() if len(stems) == 1 else _name(line)


def _name(text: str) -> str:
    """Return a path's last part without the extension of an image; other dots belong to the name."""
    path = Path(text.strip().replace("\\", "/"))
    return path.stem if path.suffix.lower() in RASTER_SUFFIXES else path.name
