"""MiniEarth as a data set: splits, dataset dicts and the reader that renders on the fly.

Splits are three square areas of one world, 200 km wide and 200 km apart, cut into windows that do not overlap. Which
window a number means is a fixed permutation, so that any first n scenes are spread over the whole area.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from mmovseg.data.miniearth.captions import ask, describe
from mmovseg.data.miniearth.domain import Domain, get_domain
from mmovseg.data.miniearth.regions import CLASS_NAMES
from mmovseg.data.miniearth.world import Scene, render
from mmovseg.data.sample import DatasetDict, RawSample
from mmovseg.errors import UserError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
DEFAULT_COUNTS: dict[str, int] = {"train": 4000, "val": 500, "test": 500}
MIN_SIZE, MAX_SIZE = 32, 1024

_AREA_M = 200_000.0
_AREA_START_M: dict[str, float] = {"train": 0.0, "val": 400_000.0, "test": 800_000.0}


def windows_per_side(size: int, gsd_m: float) -> int:
    """Return how many windows of `size` pixels fit along one side of a split's area."""
    return int(_AREA_M / gsd_m) // size


def split_start(split: str, gsd_m: float) -> int:
    """Return the first world row of a split's area."""
    return math.ceil(_AREA_START_M[split] / gsd_m)


def window_position(split: str, index: int, size: int, gsd_m: float) -> tuple[int, int]:
    """Return world row and column of the first pixel of scene number `index`."""
    side = windows_per_side(size, gsd_m)
    count = side * side
    # steps of about the golden section, prime to the count: consecutive scenes lie far apart, none repeats
    stride = round(count * 0.6180339887) | 1
    while math.gcd(stride, count) != 1:
        stride += 2
    cell = (index * stride + count // 3) % count
    start = split_start(split, gsd_m)
    return start + (cell // side) * size, (cell % side) * size


def load_miniearth(
    split: str,
    *,
    num_scenes: int | None = None,
    size: int = 64,
    domain: str | Domain | dict[str, Any] = "default",
    seed: int = 0,
) -> list[DatasetDict]:
    """Return the dataset dicts of one split; `MiniEarthReader` turns each into arrays.

    Classes (label id = index): bareland, rangeland, farmland, forest, city, road, water. SAR is sigma nought in dB with
    the channels (VV, VH) unless the domain says otherwise. See README.md beside this file.

    Args:
        split: ``train``, ``val`` or ``test``.
        num_scenes: how many; None means 4000, 500 and 500.
        size: pixels per side, 32 .. 1024.
        domain: name, `Domain` or its dict.
        seed: which world.

    Raises:
        UserError: unknown split or domain, size out of range, or more scenes than the area holds.
    """
    if split not in SPLITS:
        raise UserError(f"MiniEarth has no split '{split}'; it has: {', '.join(SPLITS)}")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"MiniEarth scenes are {MIN_SIZE} .. {MAX_SIZE} pixels wide, got size {size}")
    seen = get_domain(domain)
    count = DEFAULT_COUNTS[split] if num_scenes is None else num_scenes
    most = windows_per_side(size, seen.gsd_m) ** 2
    if not 1 <= count <= most:
        raise UserError(
            f"MiniEarth split '{split}' holds 1 .. {most} scenes of {size} px at {seen.gsd_m} m, got num_scenes {count}"
        )
    content = seen.to_dict()
    return [_dataset_dict(split, index, size, seen, content, seed) for index in range(count)]


def _dataset_dict(split: str, index: int, size: int, domain: Domain, content: dict[str, Any], seed: int) -> DatasetDict:
    row, col = window_position(split, index, size, domain.gsd_m)
    stem = f"miniearth/{split}/{index:06d}"
    return {
        "file_name": f"{stem}_optical",
        "sar_file_name": f"{stem}_sar",
        "sem_seg_file_name": f"{stem}_label",
        "height": size,
        "width": size,
        "image_id": f"miniearth_{split}_{index:06d}",
        "gsd_m": domain.gsd_m,
        "cloud_fraction": 0.0,
        "world": {"seed": seed, "row": row, "col": col, "domain": content},
    }


def scene_facts(scene: Scene) -> dict[str, Any]:
    """Return what is known of a scene besides its arrays, json-able: targets, shares, questions, sensor facts."""
    return {
        "targets": scene.targets,
        "shares": dict(zip(CLASS_NAMES, scene.shares, strict=True)),
        "questions": ask(scene.shares, scene.targets),
        "sar_channels": list(scene.domain.sar_channels),
        "sar_unit": scene.domain.sar_unit,
        "domain": scene.domain.to_dict(),
    }


def scene_captions(scene: Scene) -> list[str]:
    """Return the captions of a scene."""
    return describe(scene.shares, scene.targets, row=scene.row, col=scene.col, seed=scene.seed)


class MiniEarthReader:
    """Render the window that a dataset dict names, and keep it.

    The same dict gives the same pixels in every process. A cached 64x64 pair takes about 50 kB, so the default training
    split fits into 200 MB. What is kept serves all readers of a process: a table of several runs renders a scene once.
    """

    _kept: ClassVar[dict[tuple[Any, ...], RawSample]] = {}
    _bytes: ClassVar[int] = 0

    def __init__(self, cache: bool = True, *, cache_mb: int = 1024) -> None:
        """Make a reader.

        Args:
            cache: keep rendered scenes in memory; the caller gets copies.
            cache_mb: nothing more is kept once all readers together keep this much.
        """
        self.cache = cache
        self.cache_mb = cache_mb

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Return optical (H, W, 3) uint8, SAR (H, W, C) float32, labels (H, W) uint8, captions and facts.

        Raises:
            UserError: the dict has no `world`, or its domain is not valid.
        """
        world = dataset_dict.get("world")
        if world is None:
            raise UserError(
                f"'{dataset_dict.get('file_name')}' is no MiniEarth scene: its dataset dict has no key 'world'"
            )
        domain = get_domain(world["domain"])
        key = (domain, world["seed"], world["row"], world["col"], dataset_dict["height"], dataset_dict["width"])
        sample = self._kept.get(key)
        if sample is None:
            sample = _sample(render(*key[:1], *key[2:], seed=key[1]))
            if self.cache:
                self._keep(key, sample)
        return _copy(sample) if self.cache else sample

    def _keep(self, key: tuple[Any, ...], sample: RawSample) -> None:
        arrays = (sample.optical, sample.sar, sample.sem_seg)
        size = sum(array.nbytes for array in arrays if array is not None)
        if MiniEarthReader._bytes + size <= self.cache_mb * 1_000_000:
            self._kept[key] = sample
            MiniEarthReader._bytes += size


def _sample(scene: Scene) -> RawSample:
    return RawSample(
        optical=scene.optical,
        optical_valid=np.ones(scene.label.shape, dtype=np.bool_),
        sar=scene.sar,
        sar_valid=np.ones(scene.label.shape, dtype=np.bool_),
        sem_seg=scene.label,
        captions=scene_captions(scene),
        facts=scene_facts(scene),
    )


def _copy(sample: RawSample) -> RawSample:
    """Return a sample whose arrays the caller may change."""
    arrays = ("optical", "optical_valid", "sar", "sar_valid", "sem_seg")
    copies = {name: getattr(sample, name).copy() for name in arrays}
    return RawSample(**copies, captions=list(sample.captions), facts=dict(sample.facts))
