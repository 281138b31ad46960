"""Test scenes of MiniEarth to choose from, under a cloud that grows.

The cloud of a scene is one field of seeded noise, thick as in `tools/robustness.py`; its cover is the only thing that
changes, so that a larger cover hides what a smaller one hid, and more.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from rasterio.crs import CRS

from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.miniearth import MiniEarthReader, load_miniearth
from mmovseg.data.miniearth.captions import join_words, named_classes
from mmovseg.data.miniearth.export import CRS_NAME, world_transform
from mmovseg.data.miniearth.regions import CLASS_NAMES, ROAD, WATER
from mmovseg.data.sample import DatasetDict
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError
from mmovseg.inference.grid import Grid

SCENE_PX = 128
_LOOK_THROUGH = 200
_MIN_CLASSES = 5


@dataclass(frozen=True)
class Sample:
    """One scene under its cloud.

    title: what is in it. optical: (H, W, 3) uint8, clouded. sar: (H, W, P) float32. label: (H, W) uint8, positions in
    MiniEarth's vocabulary. cover: fraction of pixels that the cloud hides. grid: where the scene lies.
    """

    title: str
    optical: np.ndarray
    sar: np.ndarray
    label: np.ndarray
    cover: float
    grid: Grid

    def truth(self, name: str) -> float | None:
        """Return the fraction of the scene that a class really covers, None for a name that MiniEarth does not know."""
        value = get_vocabulary("miniearth", "clean").find(name)
        return None if value is None else float((self.label == value).mean())


class Gallery:
    """The first test scenes that show at least five classes, road and water among them.

    The choice looks at labels only, never at an answer.

    Args:
        count: how many scenes.
        size: pixels per side.
        seed: which world, and which clouds.
    """

    def __init__(self, *, count: int = 16, size: int = SCENE_PX, seed: int = 0) -> None:
        self.seed = seed
        self._read = MiniEarthReader()
        self._scenes: list[DatasetDict] = []
        self.titles: list[str] = []
        for scene in load_miniearth("test", num_scenes=max(_LOOK_THROUGH, count), size=size, seed=seed):
            label = self._read(scene).sem_seg
            assert label is not None
            shares = np.bincount(label.ravel(), minlength=len(CLASS_NAMES)) / label.size
            named = named_classes(shares.tolist())
            if len(named) >= _MIN_CLASSES and {ROAD, WATER} <= set(named):
                self._scenes.append(scene)
                self.titles.append(f"Scene {len(self._scenes)}: {join_words([CLASS_NAMES[i] for i in named])}")
            if len(self._scenes) == count:
                break

    def __len__(self) -> int:
        return len(self._scenes)

    def sample(self, index: int, cover_percent: float) -> Sample:
        """Render a scene under its cloud; the same arguments give the same pixels.

        Args:
            index: position in `titles`.
            cover_percent: how much of the optical image the cloud hides, 0..100.

        Raises:
            UserError: there is no such scene, or no such cover.
        """
        if not 0 <= index < len(self):
            raise UserError(f"there is no scene {index + 1}; choose one of 1..{len(self)}")
        if not 0 <= cover_percent <= 100:
            raise UserError(f"cloud cover must lie in 0..100 percent, got {cover_percent:g}")
        scene = self._scenes[index]
        raw = self._read(scene)
        assert raw.optical is not None and raw.sar is not None and raw.sem_seg is not None
        clouds = CloudSynthesizer(kind="thick", coverage=cover_percent / 100, seed=self.seed)
        height, width = raw.sem_seg.shape
        field = clouds.field(height, width, zlib.crc32(str(scene["image_id"]).encode()))
        world = scene["world"]
        transform = world_transform(world["row"], world["col"], scene["gsd_m"])
        grid = Grid(CRS.from_string(CRS_NAME), transform, height, width, str(scene["image_id"]))
        return Sample(self.titles[index], field.apply(raw.optical), raw.sar, raw.sem_seg, field.coverage, grid)
