"""Objects in boxes as data: the targets of MiniEarth on the fly."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmovseg.data.miniearth import Domain, MiniEarthReader, get_domain
from mmovseg.data.miniearth.dataset import MIN_SIZE, SPLITS, window_position, windows_per_side
from mmovseg.data.miniearth.regions import TARGET_CATEGORIES
from mmovseg.data.miniearth.sites import likely_sites
from mmovseg.data.sample import BoxAnnotation, DatasetDict
from mmovseg.errors import UserError

_BLOCK_PX = 1024  # what is looked at coarsely at once
_PER_BLOCK = 6  # scenes of a category out of one block, so that they come from many places
_IDLE_BLOCKS = 60  # blocks in a row without a category until it counts as absent


def load_miniearth_boxes(
    split: str,
    *,
    num_scenes: int = 500,
    size: int = 128,
    categories: Sequence[str] = TARGET_CATEGORIES,
    domain: str | Domain | dict[str, Any] = "default",
    seed: int = 0,
) -> list[DatasetDict]:
    """Return scenes of MiniEarth that hold targets, with `annotations`; `MiniEarthReader` gives their rasters.

    Every scene is taken for one category and holds at least one of it; the categories take turns, for in scenes as they
    come there are 30 vehicles to an aircraft. All objects of all wanted categories are annotated. The first n scenes
    are the same whatever `num_scenes`. Scenes are cells of a grid and never overlap; splits lie far apart. Finding
    objects means rendering, and the reader keeps what was rendered here.

    Args:
        split: ``train``, ``val`` or ``test``.
        num_scenes: how many.
        size: pixels a side, 32 .. 512.
        categories: wanted ones of aircraft, ship and vehicle, in the order of the model's classes. The others stay in
            the picture, unmarked.
        domain: name, `Domain` or its dict.
        seed: which world.

    Raises:
        UserError: an unknown split, category or domain, a size out of range, no scene wanted, or targets so rare that
            the split has too few scenes.
    """
    names = tuple(categories)
    unknown = [name for name in names if name not in TARGET_CATEGORIES]
    if unknown or not names:
        raise UserError(f"MiniEarth has no category '{(unknown or [''])[0]}'; it has: {', '.join(TARGET_CATEGORIES)}")
    if split not in SPLITS:
        raise UserError(f"MiniEarth has no split '{split}'; it has: {', '.join(SPLITS)}")
    if not MIN_SIZE <= size <= _BLOCK_PX // 2 or num_scenes < 1:
        raise UserError(
            f"MiniEarth gives 1 or more scenes with targets of {MIN_SIZE} .. {_BLOCK_PX // 2} pixels, got "
            f"num_scenes {num_scenes} of size {size}"
        )
    scenes = _TargetScenes(split, names, size, get_domain(domain), seed)
    return [scenes.take(names[number % len(names)], number) for number in range(num_scenes)]


class _TargetScenes:
    """Scenes by category, found block by block."""

    def __init__(self, split: str, categories: tuple[str, ...], size: int, domain: Domain, seed: int) -> None:
        self.split, self.categories, self.size, self.domain, self.seed = split, categories, size, domain, seed
        self.content = domain.to_dict()
        self.reader = MiniEarthReader()
        self.blocks = 0
        self.waiting: dict[str, list[tuple[int, int]]] = {name: [] for name in categories}
        self.taken: set[tuple[int, int]] = set()

    def take(self, category: str, number: int) -> DatasetDict:
        """Return the next scene with an object of this category."""
        idle = 0
        while idle < _IDLE_BLOCKS:
            while self.waiting[category]:
                place = self.waiting[category].pop(0)
                if place in self.taken:
                    continue
                scene = self._scene(place, number)
                targets = self.reader(scene).facts["targets"]
                if any(target["category"] == category for target in targets):
                    self.taken.add(place)
                    wanted = [target for target in targets if target["category"] in self.categories]
                    return {**scene, "annotations": [_target(target, self.categories) for target in wanted]}
            self._look_at_block()
            idle += 1
        raise UserError(
            f"MiniEarth {self.split} has no further scene of {self.size} pixels with '{category}' after {number} "
            f"scenes ({self.domain.region} region at {self.domain.gsd_m} m); ask for fewer"
        )

    def _look_at_block(self) -> None:
        """Queue the cells of the next block that probably hold targets, for each category in a random order."""
        if self.blocks >= windows_per_side(_BLOCK_PX, self.domain.gsd_m) ** 2:
            return
        row, col = window_position(self.split, self.blocks, _BLOCK_PX, self.domain.gsd_m)
        sites = likely_sites(self.domain, row, col, _BLOCK_PX, seed=self.seed)
        rng = np.random.default_rng([self.seed, self.blocks, zlib.crc32(self.split.encode())])
        self.blocks += 1
        side = _BLOCK_PX // self.size
        for category in self.categories:
            cells = np.unique(sites[category] // self.size, axis=0)
            cells = rng.permutation(cells[(cells < side).all(axis=1)])[:_PER_BLOCK]
            self.waiting[category] += [(row + int(y) * self.size, col + int(x) * self.size) for y, x in cells]

    def _scene(self, place: tuple[int, int], number: int) -> DatasetDict:
        stem = f"miniearth_boxes/{self.split}/{number:06d}"
        return {
            "file_name": f"{stem}_optical",
            "sar_file_name": f"{stem}_sar",
            "height": self.size,
            "width": self.size,
            "image_id": f"miniearth_boxes_{self.split}_{number:06d}",
            "gsd_m": self.domain.gsd_m,
            "world": {"seed": self.seed, "row": place[0], "col": place[1], "domain": self.content},
        }


def _target(target: Mapping[str, Any], categories: Sequence[str]) -> BoxAnnotation:
    x0, y0, x1, y1 = (float(value) for value in target["box"])
    return {
        "bbox": (x0, y0, x1, y1),
        "category_id": list(categories).index(target["category"]),
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }
