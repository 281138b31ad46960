"""Buildings before and after a disaster: optical images of the whole town, SAR images of what is left of it.

The world is that of `mmovseg.data.miniearth.world`, seen by the same sensors. Between the two views a seeded event
damages or destroys some buildings, district by district: of a destroyed one rubble is left, without layover, double
bounce and shadow; a damaged one has lost one half to rubble and its top storey, and its walls are broken, so that their
echoes are weak. Labels: 0 background, 1 intact, 2 damaged, 3 destroyed, on the ground plans before the event.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmovseg.data.miniearth.dataset import DEFAULT_COUNTS, MIN_SIZE, SPLITS, split_start, windows_per_side
from mmovseg.data.miniearth.domain import Domain, get_domain
from mmovseg.data.miniearth.layout import Layout, survey
from mmovseg.data.miniearth.noise import lattice_hash, rehash, stream_seed, unit
from mmovseg.data.miniearth.radar import Aftermath
from mmovseg.data.miniearth.regions import CITY, REGIONS
from mmovseg.data.miniearth.world import TILE_PX, Scene, render_tile
from mmovseg.data.sample import DatasetDict, RawSample
from mmovseg.errors import UserError

DAMAGE_NAMES = ("background", "intact", "damaged", "destroyed")
INTACT, DAMAGED, DESTROYED = 1, 2, 3

_BLOCK = 16  # windows along a side of the squares that are searched for towns
_SAMPLES = 4  # points looked at along a side of a window
_MOST_PER_BLOCK = 16
_STANDING_HEIGHT = np.float32(0.7)
_BROKEN_WALLS = np.float32(0.25)


@dataclass(frozen=True)
class Disaster:
    """What happens between the two views.

    Attributes:
        damaged_share: of all buildings, on average; in one district anything from none to twice this.
        destroyed_share: the same; both together at most 0.5, so that the worst district has no building left intact.
        seed: which buildings.
    """

    damaged_share: float = 0.25
    destroyed_share: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.damaged_share, self.destroyed_share) < 0 or self.damaged_share + self.destroyed_share > 0.5:
            raise UserError(
                "a disaster needs damaged_share and destroyed_share of at least 0 and at most 0.5 together, got "
                f"{self.damaged_share} and {self.destroyed_share}"
            )

    def strike(self, layout: Layout, seed: int) -> Aftermath:
        """Return what is left of the buildings of a window.

        Args:
            layout: the ground before.
            seed: of the region's world.
        """
        salt = np.uint32(stream_seed(seed, f"disaster{self.seed}"))
        severity = np.float32(2.0) * unit(rehash(layout.key + salt, 0))  # mean 1, one value a district
        chance = unit(rehash(layout.parcel + salt, 1))
        destroyed_below = np.float32(self.destroyed_share) * severity
        damaged_below = destroyed_below + np.float32(self.damaged_share) * severity
        state = np.full(layout.label.shape, INTACT, dtype=np.uint8)
        state[chance < damaged_below] = DAMAGED
        state[chance < destroyed_below] = DESTROYED
        state[layout.height_m <= 0] = 0
        # the half on one side of the ridge falls
        fallen = (layout.roof_v > 0) == (unit(rehash(layout.parcel + salt, 2)) < 0.5)
        rubble = (state == DESTROYED) | ((state == DAMAGED) & fallen)
        height = np.where(state == DAMAGED, layout.height_m * _STANDING_HEIGHT, layout.height_m)
        height[rubble] = 0.0
        # walls echo on the ground before them, which belongs to the lot as well
        walls = np.where(chance < damaged_below, _BROKEN_WALLS, np.float32(1.0))
        return Aftermath(height_m=height, rubble=rubble, walls=walls, state=state)


def render_damage(
    domain: str | Domain | dict[str, Any],
    row: int,
    col: int,
    height: int,
    width: int,
    *,
    seed: int = 0,
    disaster: Disaster | None = None,
) -> Scene:
    """Render a window before (optical) and after (SAR) a disaster; `Scene.damage` holds the labels.

    Optical image, land cover and, where nothing was hit, backscatter are those of `render`, to the bit.

    Args:
        domain: name, `Domain` or its dict.
        row: first world pixel row.
        col: first world pixel column.
        height: rows, 1 .. 512.
        width: columns, 1 .. 512.
        seed: which world.
        disaster: what happens; None = the default one.

    Raises:
        UserError: unknown domain.
        ValueError: the window is empty or too large.
    """
    if not (1 <= height <= TILE_PX and 1 <= width <= TILE_PX):
        raise ValueError(f"damage is rendered in windows of 1 .. {TILE_PX} pixels a side, got {height} x {width}")
    event = (disaster or Disaster()).strike
    return render_tile(get_domain(domain), row, col, height, width, seed, event)


def load_miniearth_damage(
    split: str,
    *,
    num_scenes: int | None = None,
    size: int = 64,
    domain: str | Domain | dict[str, Any] = "default",
    seed: int = 0,
    disaster: Disaster | None = None,
    min_city: float = 0.5,
) -> list[DatasetDict]:
    """List windows with buildings; `MiniEarthDamageReader` renders them.

    Windows are those of `load_miniearth`, in another order: squares of 16 x 16 windows, spread over the area of the
    split, are searched one after the other, and of each at most 16 windows are taken.

    Args:
        split: ``train``, ``val`` or ``test``.
        num_scenes: how many; None means 4000, 500 and 500.
        size: pixels per side, 32 .. 512.
        domain: name, `Domain` or its dict.
        seed: which world.
        disaster: what happens between the views; None = the default one.
        min_city: share of a window that must be city, of 4 x 4 points looked at.

    Raises:
        UserError: unknown split or domain, size out of range, or fewer such windows than asked for.
    """
    if split not in SPLITS:
        raise UserError(f"MiniEarth has no split '{split}'; it has: {', '.join(SPLITS)}")
    if not MIN_SIZE <= size <= TILE_PX:
        raise UserError(f"MiniEarth scenes of damage are {MIN_SIZE} .. {TILE_PX} pixels wide, got size {size}")
    count = DEFAULT_COUNTS[split] if num_scenes is None else num_scenes
    if count < 1:
        raise UserError(f"num_scenes is {count}, but a data set has at least one scene")
    seen = get_domain(domain)
    places = _find_towns(split, count, size, seen, seed, min_city)
    world = {"seed": seed, "domain": seen.to_dict(), "disaster": asdict(disaster or Disaster())}
    return [
        _dataset_dict(split, index, size, seen, {**world, "row": r, "col": c}) for index, (r, c) in enumerate(places)
    ]


def _find_towns(split: str, count: int, size: int, domain: Domain, seed: int, min_city: float) -> list[tuple[int, int]]:
    """Return world row and column of `count` windows, always the same for the same arguments."""
    side = windows_per_side(size, domain.gsd_m) // _BLOCK
    seed_here = stream_seed(seed, domain.region)
    found: list[tuple[int, int]] = []
    start = split_start(split, domain.gsd_m)
    offsets = (np.arange(_BLOCK * _SAMPLES, dtype=np.float64) + 0.5) * (size / _SAMPLES)
    stride = round(side * side * 0.6180339887) | 1
    while math.gcd(stride, side * side) != 1:
        stride += 2
    for number in range(side * side):
        block = (number * stride + side * side // 3) % (side * side)
        top, left = start + (block // side) * _BLOCK * size, (block % side) * _BLOCK * size
        layout = survey(
            (top + offsets) * domain.gsd_m, (left + offsets) * domain.gsd_m, REGIONS[domain.region], seed_here
        )
        share = (layout.label == CITY).reshape(_BLOCK, _SAMPLES, _BLOCK, _SAMPLES).mean(axis=(1, 3))
        order = lattice_hash(np.arange(_BLOCK)[:, None], np.arange(_BLOCK)[None, :], stream_seed(seed, f"{top} {left}"))
        cells = sorted(np.argwhere(share >= min_city).tolist(), key=lambda cell: int(order[cell[0], cell[1]]))
        found += [(top + y * size, left + x * size) for y, x in cells[:_MOST_PER_BLOCK]]
        if len(found) >= count:
            return found[:count]
    raise UserError(
        f"MiniEarth split '{split}' has {len(found)} windows of {size} px with at least {min_city:.0%} city, "
        f"fewer than num_scenes {count}"
    )


def _dataset_dict(split: str, index: int, size: int, domain: Domain, world: dict[str, Any]) -> DatasetDict:
    stem = f"miniearth_damage/{split}/{index:06d}"
    return {
        "file_name": f"{stem}_optical_before",
        "sar_file_name": f"{stem}_sar_after",
        "sem_seg_file_name": f"{stem}_damage",
        "height": size,
        "width": size,
        "image_id": f"miniearth_damage_{split}_{index:06d}",
        "gsd_m": domain.gsd_m,
        "cloud_fraction": 0.0,
        "world": world,
    }


class MiniEarthDamageReader:
    """Render the window that a dataset dict of `load_miniearth_damage` names, and keep it.

    Args:
        cache_mb: nothing more is kept in memory once this reader keeps so much; a 64x64 pair takes 50 kB. 0 keeps none.
    """

    def __init__(self, *, cache_mb: int = 1024) -> None:
        self.cache_mb = cache_mb
        self._kept: dict[str, Scene] = {}
        self._bytes = 0

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Return optical before (H, W, 3) uint8, SAR after (H, W, C) float32 and labels (H, W) uint8.

        Raises:
            UserError: the dict names no window with a disaster, or its domain is not valid.
        """
        world = dataset_dict.get("world") or {}
        if "disaster" not in world:
            name = dataset_dict.get("file_name")
            raise UserError(f"'{name}' is no scene of damage: its dataset dict has no 'disaster' in 'world'")
        key = repr((world, dataset_dict["height"], dataset_dict["width"]))
        scene = self._kept.get(key)
        if scene is None:
            size = dataset_dict["height"], dataset_dict["width"]
            disaster = Disaster(**world["disaster"])
            scene = render_damage(
                world["domain"], world["row"], world["col"], *size, seed=world["seed"], disaster=disaster
            )
            size_bytes = scene.optical.nbytes + scene.sar.nbytes + 2 * scene.label.nbytes
            if self._bytes + size_bytes <= self.cache_mb * 1_000_000:
                self._kept[key] = scene
                self._bytes += size_bytes
        assert scene.damage is not None
        return RawSample(
            optical=scene.optical.copy(),
            optical_valid=np.ones(scene.label.shape, dtype=np.bool_),
            sar=scene.sar.copy(),
            sar_valid=np.ones(scene.label.shape, dtype=np.bool_),
            sem_seg=scene.damage.copy(),
            facts={"sar_channels": list(scene.domain.sar_channels), "sar_unit": scene.domain.sar_unit},
        )
