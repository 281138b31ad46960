"""Small trees of the data sets of SAR alone as their publishers give them, for the prepare scripts.

OpenEarthMap-SAR is that of `mmovseg.testing.trees`. The pixels are those of `mmovseg.testing.trees_sar`, so that a test
knows what a script should make of them.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.trees_sar import FakeSarTile, fake_sar_tiles

AirForm = Literal["scenes", "tiles"]

KOREAN_IDS = ("building", "road", "greenery", "water", "farmland")
_WHU_VALUES = {"farmland": 10, "city": 20, "village": 30, "water": 40, "forest": 50, "road": 60, "others": 70}
_STAIN = 4  # largest difference of a stored colour from the palette, as compression leaves it


def air_scenes(*, size: int = 32, seed: int = 0) -> dict[str, FakeSarTile]:
    """Return scene -> its pixels: 2 x 3 tiles of `size` and a rest at the edges that is no tile."""
    tiles = fake_sar_tiles("air_polsar", count=1, size=3 * size + 5, seed=seed)
    scenes = {}
    for tile in (tile for tile in tiles if tile.split == "train"):
        cut = (slice(0, 2 * size + 3), slice(0, 3 * size + 5))
        views = {name: pixels[cut] for name, pixels in tile.views.items()}
        scenes[tile.stem[:2]] = FakeSarTile("train", tile.stem[:2], tile.label[cut], views)
    return scenes


def write_air_polsar(root: str | Path, *, form: AirForm = "scenes", size: int = 32, seed: int = 0) -> Path:
    """Write scenes with colours that compression has changed a little, or tiles with a split."""
    root = Path(root)
    if form == "scenes":
        for name, scene in air_scenes(size=size, seed=seed).items():
            folder = root / "AIR-PolSAR-Seg-2.0" / name.upper() / "modified"
            _write_views(folder, name, scene)
            write_raster(folder / f"{name}_gt_modify.tiff", stained_colors(scene.label, "air_polsar", seed))
        return root
    for tile in fake_sar_tiles("air_polsar", count=2, size=size, seed=seed):
        folder = root / "air-polarsar-seg-2.0" / ("train" if tile.split == "train" else "val")
        _write_views(folder, tile.stem, tile, by_polarisation=True)
        write_raster(folder / "gt" / f"{tile.stem}.tiff", stained_colors(tile.label, "air_polsar", seed))
    return root


def stained_colors(label: np.ndarray, vocabulary: str, seed: int = 0) -> np.ndarray:
    """Return a label as RGB, each value up to `_STAIN` away from the palette; 255 becomes white.

    Args:
        label: (H, W) uint8 ids.
        vocabulary: whose palette.
        seed: of the stains.

    Returns:
        (H, W, 3) uint8.
    """
    palette = np.full((256, 3), 255, dtype=np.int64)
    colors = np.array(get_vocabulary(vocabulary).colors)
    palette[: len(colors)] = colors
    stain = np.random.default_rng(seed).integers(-_STAIN, _STAIN + 1, (*label.shape, 3))
    return np.clip(palette[label] + stain, 0, 255).astype(np.uint8)


def write_ddhr(root: str | Path, *, count: int = 5, size: int = 16, seed: int = 0) -> Path:
    """Write both regions: grey JPEGs of three bands, and labels of five ids with 255 for the class "other"."""
    names = get_vocabulary("ddhr_sar").names
    stored = np.full(256, 255, dtype=np.uint8)
    stored[[names.index(name) for name in KOREAN_IDS]] = range(len(KOREAN_IDS))
    for region in ("korea", "shandong"):
        folder = Path(root) / "DDHR-DATA" / region / "256_cloud"
        for number, tile in enumerate(_train_tiles(f"ddhr_{region}", count, size, seed), 1):
            grey = np.repeat(tile.views[""][:, :, None], 3, axis=2)
            write_raster(folder / "GF3" / f"{number}.jpg", grey)
            write_raster(folder / "label" / f"{number}.png", stored[tile.label])
    return Path(root)


def write_fusar_map(root: str | Path, *, count: int = 5, size: int = 64, seed: int = 0) -> Path:
    """Write images and labels whose names differ in one word."""
    folder = Path(root) / "FUSAR-Map"
    for number, tile in enumerate(_train_tiles("fusar_map", count, size, seed), 1):
        for kind in ("SAR", "LAB"):
            label = np.where(tile.label == 255, get_vocabulary("fusar_map").names.index("other"), tile.label)
            pixels = tile.views[""] if kind == "SAR" else stained_colors(label, "fusar_map", seed)
            write_raster(folder / f"{kind}_1024" / f"Jiujiang_01_02_01_{number:02d}_{kind}_{number:03d}.tif", pixels)
    return Path(root)


def write_sarbud(
    root: str | Path, *, count: int = 5, size: int = 16, seed: int = 0, zipped: bool = False
) -> list[Path]:
    """Write patches and masks of 255 as folders or as two archives, and return what to give as ``--source``."""
    root = Path(root)
    building = get_vocabulary("sarbud").names.index("building")
    for number, tile in enumerate(_train_tiles("sarbud", count, size, seed), 1):
        write_raster(root / "images" / f"p{number}.png", tile.views[""])
        write_raster(root / "Labelimgs" / f"p{number}.png", np.where(tile.label == building, 255, 0).astype(np.uint8))
    if not zipped:
        return [root]
    archives = []
    for name in ("images", "Labelimgs"):
        archives.append(root / f"{name}.zip")
        with zipfile.ZipFile(archives[-1], "w") as archive:
            for path in sorted((root / name).iterdir()):
                archive.write(path, path.name)  # without a folder, the harder case
                path.unlink()
        (root / name).rmdir()
    return archives


def write_whu_opt_sar(root: str | Path, *, count: int = 5, size: int = 40, seed: int = 0) -> Path:
    """Write scenes that no whole number of tiles fits, and the publishers' division."""
    folder, names = Path(root) / "WHU-OPT-SAR", get_vocabulary("whu_opt_sar").names
    stored = np.zeros(256, dtype=np.uint8)
    stored[: len(names)] = [_WHU_VALUES[name] for name in names]
    sheets = [f"NH49E0010{number:02d}" for number in range(1, count + 1)]
    for sheet, tile in zip(sheets, _train_tiles("whu_opt_sar", count, size, seed), strict=True):
        write_raster(folder / "sar" / f"{sheet}.tif", tile.views[""])
        write_raster(folder / "lbl" / f"{sheet}.tif", stored[tile.label])
    *train, test = (f"{sheet}.tif" for sheet in sheets)
    text = "\n".join(["train:", *train, "", "test:", test, "", ""])
    (folder / "The division of the dataset.txt").write_text(text, encoding="utf-8")
    return Path(root)


def _train_tiles(name: str, count: int, size: int, seed: int) -> list[FakeSarTile]:
    return [tile for tile in fake_sar_tiles(name, count=count, size=size, seed=seed) if tile.split == "train"]


def _write_views(folder: Path, stem: str, tile: FakeSarTile, *, by_polarisation: bool = False) -> None:
    for view, pixels in tile.views.items():
        name, rendering = view.split("_")
        if pixels.ndim == 2 and not (by_polarisation and rendering != "amp"):
            inside = folder / name if by_polarisation else folder
            write_raster(inside / f"{stem}_{name}_{rendering.replace('imag', 'imgy')}.tiff", pixels)
