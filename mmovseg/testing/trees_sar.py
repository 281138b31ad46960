"""Small trees of the data sets of SAR alone, as the prepare scripts write them.

The pixels are made up, but a class has the same mean backscatter in every set, so that a model trained on one can be
tested on another.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmovseg.data.datasets.sar_sets import COMPOSITE, POLARISATIONS, SAR_SETS, SPLITS, find_sar_set
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.testing.fakes import write_raster

REGIONS = ("bj", "sh", "gz")
"""Scenes of AIR-PolSAR-Seg-2.0; mountains are in the first only."""

_LEVELS = {"building": 210.0, "city": 210.0, "village": 190.0, "water": 25.0, "road": 55.0, "vegetation": 120.0}
_LEVELS |= {"greenery": 135.0, "forest": 135.0, "tree": 135.0, "farmland": 100.0, "agricultural land": 100.0}
_LEVELS |= {"mountain": 165.0, "rangeland": 110.0}
_OTHER_LEVEL = 75.0
_GAIN = {"hh": 1.0, "vv": 0.9, "hv": 0.5, "vh": 0.5}
_BLOCK_PX = 8
_VOID_PX = 2  # rows at the top of every label that are 255
_SPECKLE = 0.15


@dataclass(frozen=True)
class FakeSarTile:
    """One tile.

    label: (H, W) uint8 ids of the class list of the set, 255 in the first rows.
    views: name of a view -> (H, W) uint8, or (H, W, 3) of the composite; a set with one rendering has the name ``""``.
    """

    split: str
    stem: str
    label: np.ndarray
    views: dict[str, np.ndarray]


def fake_sar_tiles(name: str, *, count: int = 2, size: int = 64, seed: int = 0) -> list[FakeSarTile]:
    """Return what `write_sar_tree` writes of a set with the same arguments."""
    known = find_sar_set(name)
    classes = get_vocabulary(known.vocabulary).names
    regions = REGIONS if name == "air_polsar" else ("tile",)
    tiles = []
    for split in SPLITS:
        for region in regions:
            for number in range(1, count + 1):
                stem = f"{region}_{split}{number:03d}"
                rng = np.random.default_rng([seed, zlib.crc32(f"{name}/{stem}".encode())])
                kept = [id_ for id_, word in enumerate(classes) if word != "mountain" or region == REGIONS[0]]
                label = _blocks(rng.permutation(kept), rng, size)
                views = _views(label, classes, rng) if name == "air_polsar" else {"": _detected(label, classes, 1, rng)}
                label[:_VOID_PX] = 255
                tiles.append(FakeSarTile(split, stem, label.astype(np.uint8), views))
    return tiles


def write_sar_tree(
    root: str | Path, *, names: Sequence[str] | None = None, count: int = 2, size: int = 64, seed: int = 0
) -> Path:
    """Write prepared trees.

    Args:
        root: the data root.
        names: of `SAR_SETS`; None = all.
        count: tiles of each split, of AIR-PolSAR-Seg-2.0 of each split and region.
        size: side of a tile, pixels (512 in reality).
        seed: of everything random.

    Returns:
        `root`.
    """
    for name in names if names is not None else [known.name for known in SAR_SETS]:
        for tile in fake_sar_tiles(name, count=count, size=size, seed=seed):
            folder = Path(root) / name / tile.split
            write_raster(folder / "label" / f"{tile.stem}.png", tile.label)
            for view, pixels in tile.views.items():
                write_raster(folder / (f"sar_{view}" if view else "sar") / f"{tile.stem}.png", pixels)
    return Path(root)


def _blocks(ids: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a map of blocks in which every class comes, as long as there are as many blocks."""
    side = -(-size // _BLOCK_PX)
    drawn = rng.permutation(np.resize(ids, side * side)).reshape(side, side)
    return np.kron(drawn, np.ones((_BLOCK_PX, _BLOCK_PX), dtype=np.int64))[:size, :size]


def _detected(label: np.ndarray, classes: Sequence[str], gain: float, rng: np.random.Generator) -> np.ndarray:
    levels = np.array([_LEVELS.get(word, _OTHER_LEVEL) for word in classes])
    amplitude = gain * levels[label] * (1 + _SPECKLE * rng.standard_normal(label.shape))
    return np.asarray(np.clip(amplitude, 0, 255).astype(np.uint8))


def _views(label: np.ndarray, classes: Sequence[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
    views = {f"{name}_amp": _detected(label, classes, _GAIN[name], rng) for name in POLARISATIONS}
    for name in POLARISATIONS:
        phase = rng.uniform(0, 2 * np.pi, label.shape)
        for part, share in (("real", np.cos(phase)), ("imag", np.sin(phase))):
            views[f"{name}_{part}"] = (127.5 + 0.5 * views[f"{name}_amp"] * share).astype(np.uint8)
    views[COMPOSITE] = np.stack([views[f"{name}_amp"] for name in ("hh", "hv", "vv")], axis=2)
    return views
