"""Small maps of scenes, written in parts as a large one would be."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine

from mmovseg.data.vocabulary import Vocabulary, vocabulary_from_names
from mmovseg.inference.grid import Grid
from mmovseg.inference.scene.layers import Layer, confidence_layer, label_layer, quality_layer
from mmovseg.inference.scene.parts import PartStore

UTM33 = CRS.from_epsg(32633)
NORTH_UP_10M = Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5_000_000.0)
FOUR_CLASSES = "water, road, building, grass"


def map_grid(shape: tuple[int, int], *, crs: CRS | None = UTM33, transform: Affine = NORTH_UP_10M) -> Grid:
    """Return a grid of so many rows and columns, 10 m in UTM zone 33 unless told."""
    return Grid(crs, transform, *shape, "a test")


def blocky_labels(
    shape: tuple[int, int], *, classes: int = 4, block: int = 9, nodata: int | None = 255, seed: int = 0
) -> np.ndarray:
    """Draw random squares of `block` pixels, some of them nodata, and single pixels of salt and pepper."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, classes, (-(-shape[0] // block), -(-shape[1] // block)))
    if nodata is not None:
        coarse[random.random(coarse.shape) < 0.1] = nodata
    labels = np.kron(coarse, np.ones((block, block), dtype=np.int64))[: shape[0], : shape[1]]
    salt = random.random(shape) < 0.02
    labels[salt] = random.integers(0, classes, salt.sum())
    return labels.astype(np.uint8 if classes < 256 else np.uint16)


def equal_parts(height: int, rows: int) -> list[tuple[int, int]]:
    """Cut `height` rows into parts of `rows`; the last one is what is left."""
    return [(start, min(start + rows, height)) for start in range(0, height, rows)]


def map_store(
    path: str | Path,
    grid: Grid,
    layers: Sequence[Layer] | None = None,
    *,
    rows: int = 100,
    plan: Mapping[str, Any] | None = None,
    inputs: Sequence[Path] = (),
) -> PartStore:
    """Return a store of labels, confidence and quality (or `layers`) in parts of `rows` rows."""
    if layers is None:
        layers = [label_layer(vocabulary_from_names(FOUR_CLASSES)), confidence_layer(), quality_layer()]
    plan = {"tile": 64} if plan is None else plan
    return PartStore(path, grid, layers, plan=plan, part_rows=equal_parts(grid.height, rows), inputs=inputs)


def map_arrays(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return labels with a confidence and a quality that go with them."""
    missing = labels == 255
    height, width = labels.shape
    confidence = (100 + (np.arange(height)[:, None] + np.arange(width)) % 150).astype(np.uint8)
    return {
        "labels": labels,
        "confidence": np.where(missing, np.uint8(255), confidence),
        "quality": np.where(missing, 3, 0).astype(np.uint8),
    }


def write_parts(store: PartStore, arrays: Mapping[str, np.ndarray], indices: Sequence[int] | None = None) -> None:
    """Cut whole arrays, (H, W) or (bands, H, W), into the parts of a store and write them (or some of them)."""
    for index in range(len(store.part_rows)) if indices is None else indices:
        start, stop = store.part_rows[index]
        store.write(index, {name: array[..., start:stop, :] for name, array in arrays.items()})


def write_map(path: str | Path, labels: np.ndarray, grid: Grid, vocabulary: Vocabulary) -> Path:
    """Write labels as the map of a scene."""
    store = map_store(path, grid, [label_layer(vocabulary)])
    store.begin(overwrite=True)
    write_parts(store, {"labels": labels})
    return store.finish({})[0]


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Let every write of this process beyond `size` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
