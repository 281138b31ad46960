"""Windows of MiniEarth that show a point target: image chips for pretraining and for classification.

Optical and SAR chips lie in different blocks of a split's area, so no two of them show the same ground, and as the
areas of the splits lie apart, neither do chips of two splits.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from mmovseg.data.miniearth.dataset import MIN_SIZE, SPLITS, window_position, windows_per_side
from mmovseg.data.miniearth.domain import Domain, get_domain
from mmovseg.data.miniearth.layout import Layout, survey
from mmovseg.data.miniearth.noise import pixel_axis, stream_seed
from mmovseg.data.miniearth.regions import REGIONS, TARGET_CATEGORIES
from mmovseg.data.miniearth.sites import STEP_PX, likely_sites
from mmovseg.data.miniearth.targets import RADIUS_M, Site, find_targets
from mmovseg.data.sample import DatasetDict
from mmovseg.errors import UserError

ChipSensor = Literal["optical", "sar", "both"]
CHIP_SENSORS: tuple[ChipSensor, ...] = get_args(ChipSensor)
DEFAULT_CHIPS: dict[str, int] = {"train": 1500, "val": 300, "test": 300}

_BLOCK_M, _BLOCK_PX = 2560.0, (512, 1024)  # what is searched at once: so many metres within so many pixels
_MAX_CHIP_PX = 256
_TRIED, _PER_BLOCK = 64, 8  # sites and chips of one category at most, so that chips come from many places
_AT_ONCE = 6  # sites that are looked at together: more pixels, fewer calls
_IDLE_BLOCKS = 12  # a category that so many blocks in a row do not show is not there


@dataclass(frozen=True)
class _Search:
    """Where chips are looked for, and what they are: hashable, since what was found is kept."""

    domain: Domain
    split: str
    sensor: ChipSensor
    size: int
    jitter: float
    seed: int

    @property
    def block_px(self) -> int:
        """Side of a block. It does not go by the size of chips, so that chips of all sizes keep to the same blocks."""
        low, high = _BLOCK_PX
        return min(max(STEP_PX * round(_BLOCK_M / self.domain.gsd_m / STEP_PX), low), high)


class _Chips:
    """The chips of one search so far: category -> (row, column) of first pixels, in the order of the blocks."""

    def __init__(self, search: _Search) -> None:
        self.search = search
        self.found: dict[str, list[tuple[int, int]]] = {category: [] for category in TARGET_CATEGORIES}
        self._last = dict.fromkeys(TARGET_CATEGORIES, 0)
        self._blocks = 0

    def take(self, category: str, count: int) -> list[tuple[int, int]]:
        """Return the first `count` chips of a category; blocks are searched as far as that needs.

        Raises:
            UserError: too few targets of the category are there.
        """
        search = self.search
        most = windows_per_side(search.block_px, search.domain.gsd_m) ** 2 // len(CHIP_SENSORS)
        while len(self.found[category]) < count:
            if self._blocks - self._last[category] > _IDLE_BLOCKS or self._blocks >= most:
                raise UserError(
                    f"MiniEarth split '{search.split}' shows only {len(self.found[category])} of the {count} chips "
                    f"with {category} asked for ({search.domain.region} region at {search.domain.gsd_m} m)"
                )
            self._search_block()
        return self.found[category][:count]

    def _search_block(self) -> None:
        """Look at the next block of this sensor."""
        search, gsd_m = self.search, self.search.domain.gsd_m
        index = self._blocks * len(CHIP_SENSORS) + CHIP_SENSORS.index(search.sensor)
        self._blocks += 1
        row, col = window_position(search.split, index, search.block_px, gsd_m)
        ground = _Ground(search, row, col)
        rng = np.random.default_rng([search.seed, index, zlib.crc32(search.split.encode())])
        chosen: list[tuple[str, np.ndarray, tuple[int, int]]] = []
        for category in TARGET_CATEGORIES:  # the rarest first, so that the others leave it room
            before = len(chosen)
            for site in rng.permutation(ground.sites[category])[:_TRIED]:
                place = self._place(site, rng)
                if place is None or not ground.is_free(category, place):
                    continue
                if not any(_overlap(place, other, search.size) for _, _, other in chosen):
                    chosen.append((category, site, place))
                if len(chosen) - before == _PER_BLOCK:
                    break
        there = ground.have_targets([(category, site) for category, site, _ in chosen])
        for category, _, place in itertools.compress(chosen, there):
            self.found[category].append((row + place[0], col + place[1]))
            self._last[category] = self._blocks

    def _place(self, site: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return the first row and column in the block of a window around a target, None where it would not fit."""
        size = self.search.size
        room = max(0.0, size / 2 - RADIUS_M / self.search.domain.gsd_m)
        first = np.rint(site + rng.uniform(-1.0, 1.0, 2) * room * self.search.jitter - size / 2).astype(int)
        if first.min() < 0 or first.max() > self.search.block_px - size:
            return None
        return int(first[0]), int(first[1])


class _Ground:
    """A block, looked at coarsely: where targets may stand. Full resolution is left to the few places that are taken.

    `sites`: category -> (M, 2) rows and columns of its sites on ground of the right kind.
    """

    def __init__(self, search: _Search, row: int, col: int) -> None:
        self.search, self.row, self.col = search, row, col
        self.seed = stream_seed(search.seed, search.domain.region)
        self.sites = likely_sites(search.domain, row, col, search.block_px, seed=search.seed)

    def is_free(self, category: str, place: tuple[int, int]) -> bool:
        """Whether no site of another category lies in the middle half of the window that begins at `place`."""
        size = self.search.size
        first = np.array(place) + size // 4
        others = np.concatenate([sites for name, sites in self.sites.items() if name != category])
        return not ((others >= first) & (others < first + size // 2)).all(axis=1).any()

    def have_targets(self, sites: Sequence[tuple[str, np.ndarray]]) -> list[bool]:
        """Return for each category and site whether the outline of a target fits the ground there."""
        found = []
        for first in range(0, len(sites), _AT_ONCE):
            found += self._have_targets(sites[first : first + _AT_ONCE])
        return found

    def _have_targets(self, sites: Sequence[tuple[str, np.ndarray]]) -> list[bool]:
        """Survey the rows of all sites crossed with the columns of all; a call for each would cost more."""
        domain = self.search.domain
        reach = math.ceil(RADIUS_M / domain.gsd_m) + 1
        near = np.arange(-reach, reach + 1)
        rows, cols = (np.sort(np.concatenate([site[axis] + near for _, site in sites])) for axis in (0, 1))
        ys, xs = (
            pixel_axis(start, self.search.block_px + 2 * reach) * domain.gsd_m
            for start in (self.row - reach, self.col - reach)
        )
        layout = survey(ys[rows + reach], xs[cols + reach], REGIONS[domain.region], self.seed)
        found = []
        for category, site in sites:
            own = np.searchsorted(rows, site[0] + near), np.searchsorted(cols, site[1] + near)
            targets = find_targets(_cut(layout, *own), domain, self.seed)
            found.append(any(at.kind.category == category and (at.y, at.x) == (reach, reach) for at in targets))
        return found


def _cut(layout: Layout, rows: Site, cols: Site) -> Layout:
    """Return the part of a layout that lies in some of its rows and columns."""
    axes: dict[str, Any] = {"y_m": layout.y_m[rows], "x_m": layout.x_m[cols]}
    names = (field.name for field in fields(layout) if field.name not in axes)
    return Layout(**{name: getattr(layout, name)[np.ix_(rows, cols)] for name in names}, **axes)


def load_miniearth_targets(
    split: str,
    *,
    sensor: ChipSensor = "both",
    num: int | None = None,
    size: int = 64,
    categories: Sequence[str] = TARGET_CATEGORIES,
    jitter: float = 0.5,
    domain: str | Domain | dict[str, Any] = "default",
    seed: int = 0,
    source: str | None = None,
) -> list[DatasetDict]:
    """Return dataset dicts of windows that show targets of one category each; `MiniEarthReader` renders them.

    `label` is the position in `categories` of the target's category; others stand outside the middle half, if at all.
    There are equally many of each, taking turns, so that the
    first n are balanced and are the same whatever `num`. No two windows of a call overlap, and windows of different
    sensors or splits never show the same ground. What was found is kept in the process, as finding takes time.

    Args:
        split: ``train``, ``val`` or ``test``; in the same areas as the scenes of `load_miniearth`.
        sensor: ``optical`` or ``sar``: the dict names that raster alone; ``both``: registered pairs.
        num: how many; None means 1500, 300 and 300.
        size: pixels per side, 32 .. 256.
        categories: which of aircraft, ship and vehicle, in the order of the labels.
        jitter: how far targets may lie off the centre, as a share of what keeps them whole, 0 .. 1.
        domain: name, `Domain` or its dict.
        seed: which world.
        source: name of the source, for readers and normalisation that go by it; None = none.

    Raises:
        UserError: an argument is not valid, or too few targets are there.
    """
    if split not in SPLITS:
        raise UserError(f"MiniEarth has no split '{split}'; it has: {', '.join(SPLITS)}")
    if sensor not in CHIP_SENSORS:
        raise UserError(f"MiniEarth has no chips of sensor '{sensor}'; known: {', '.join(CHIP_SENSORS)}")
    if not MIN_SIZE <= size <= _MAX_CHIP_PX:
        raise UserError(f"MiniEarth chips are {MIN_SIZE} .. {_MAX_CHIP_PX} pixels wide, got size {size}")
    if not 0.0 <= jitter <= 1.0:
        raise UserError(f"the jitter of MiniEarth chips is 0 .. 1, got {jitter}")
    names = tuple(categories)
    unknown = [name for name in names if name not in TARGET_CATEGORIES]
    if unknown or not names or len(set(names)) < len(names):
        raise UserError(
            f"categories of MiniEarth chips are a choice of {', '.join(TARGET_CATEGORIES)}, got {', '.join(names)}"
        )
    count = DEFAULT_CHIPS[split] if num is None else num
    if count < 1:
        raise UserError(f"MiniEarth chips need num of at least 1, got {count}")
    search = _Search(get_domain(domain), split, sensor, size, float(jitter), seed)
    chips = _chips(search)
    places = [chips.take(name, -(-(count - label) // len(names))) for label, name in enumerate(names)]
    return [
        _dataset_dict(search, names[index % len(names)], index, places[index % len(names)][index // len(names)], source)
        | {"label": index % len(names)}
        for index in range(count)
    ]


@functools.lru_cache(maxsize=32)
def _chips(search: _Search) -> _Chips:
    return _Chips(search)


def _overlap(one: tuple[int, int], other: tuple[int, int], size: int) -> bool:
    return abs(one[0] - other[0]) < size and abs(one[1] - other[1]) < size


def _dataset_dict(
    search: _Search, category: str, index: int, place: tuple[int, int], source: str | None
) -> DatasetDict:
    stem = f"miniearth_targets/{search.split}/{search.sensor}_{index:06d}_{category}"
    item: DatasetDict = {
        "height": search.size,
        "width": search.size,
        "image_id": f"chip_{search.split}_{search.sensor}_{index:06d}_{category}",
        "gsd_m": search.domain.gsd_m,
        "world": {"seed": search.seed, "row": place[0], "col": place[1], "domain": search.domain.to_dict()},
    }
    if search.sensor != "sar":
        item["file_name"] = f"{stem}_optical"
    if search.sensor != "optical":
        item["sar_file_name"] = f"{stem}_sar"
    if source is not None:
        item["source"] = source
    return item
