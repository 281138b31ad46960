"""Small trees of every folder data set: as published, as the MM-OVSeg authors ship it, as it is prepared.

The pixels are made up, but classes differ in colour and backscatter, so that models can learn from them.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from rasterio.transform import Affine

from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.testing.fakes import write_raster

TreeLayout = Literal["own", "release", "public"]

OTHER_TREES = {
    "spacenet6": "trees_spacenet6",
    "dfc2023": "trees_dfc2023",
    "dfc2023_building": "trees_dfc2023",
    "ombria": "trees_ombria",
}
"""Data sets whose trees have a module of their own, with the same function without `name`."""

_BLOCK_PX = 8
_VOID_PX = 2  # rows at the top of every label that are 255
_UTM = "EPSG:32654"


def write_tree(
    name: str, root: str | Path, *, layout: TreeLayout = "own", count: int = 4, size: int = 32, seed: int = 0
) -> Path:
    """Write a tree of a data set.

    Args:
        name: of the catalog, without a split; data sets that share files (`pie_cloud`, `pie_clean`) share the tree.
        root: `own`, `release`: the data root; `public`: what is then given to the prepare script as ``--source``.
        layout: `own` is what the prepare script writes, `release` the authors' download, `public` the publisher's.
        count: pairs of each split.
        size: side of every raster, pixels.
        seed: of everything random.

    Returns:
        `root`.

    Raises:
        ValueError: there is no such tree.
    """
    root = Path(root)
    if name in OTHER_TREES:
        module = importlib.import_module(f"mmovseg.testing.{OTHER_TREES[name]}")
        options = {"name": name} if name == "dfc2023_building" else {}
        module.write_tree(root, layout=layout, count=count, size=size, seed=seed, **options)
        return root
    writer = _WRITERS.get((name.split("_")[0], layout))
    if writer is None:
        raise ValueError(f"there is no tree '{layout}' of '{name}'")
    for scene in fake_scenes(name, count=count, size=size, seed=seed):
        writer(root, name, scene)
    return root


@dataclass(frozen=True)
class FakeScene:
    """One pair.

    split: ``train`` or ``val``. number: counts through the splits, from 1.
    label: (H, W) uint8 ids of the full class list, 255 in the first rows.
    optical: (H, W, 3) uint8. clouded: the same under a bright veil. sar: (H, W) uint8.
    """

    split: str
    number: int
    label: np.ndarray
    optical: np.ndarray
    clouded: np.ndarray
    sar: np.ndarray
    place: dict[str, Any]


def fake_scenes(name: str, *, count: int = 4, size: int = 32, seed: int = 0) -> list[FakeScene]:
    """Return what `write_tree` writes with the same arguments."""
    splits = ("val",) if name == "ddhr_ch" else ("train", "val")
    num_classes = len(get_vocabulary(_vocabulary_name(name)))
    look = np.random.default_rng(zlib.crc32(name.split("_")[0].encode()))
    colors, levels = look.uniform(30, 220, (num_classes, 3)), look.uniform(30, 220, num_classes)
    scenes = []
    for number, split in enumerate((split for split in splits for _ in range(count)), start=1):
        rng = np.random.default_rng([seed, number, zlib.crc32(name.split("_")[0].encode())])
        blocks = rng.integers(num_classes, size=(-(-size // _BLOCK_PX),) * 2)
        label = np.kron(blocks, np.ones((_BLOCK_PX, _BLOCK_PX), dtype=np.int64))[:size, :size]
        optical = np.clip(colors[label] + rng.normal(0, 8, (size, size, 3)), 0, 255).astype(np.uint8)
        clouded = np.rint(0.4 * optical + 0.6 * 240).astype(np.uint8)
        sar = np.clip(levels[label] + rng.normal(0, 8, (size, size)), 0, 255).astype(np.uint8)
        label[:_VOID_PX] = 255
        place = {"crs": _UTM, "transform": Affine(0.5, 0, 380_000 + number * 1000, 0, -0.5, 3_950_000)}
        scenes.append(FakeScene(split, number, label.astype(np.uint8), optical, clouded, sar, place))
    return scenes


def _vocabulary_name(name: str) -> str:
    return name if name.startswith("ddhr") else name.split("_")[0]


def _seen_positions(label: np.ndarray, name: str) -> np.ndarray:
    """Number the seen classes alone, as the training labels of the release do."""
    seen = get_vocabulary(_vocabulary_name(name)).seen_ids
    table = np.full(256, 255, dtype=np.uint8)
    table[seen] = np.arange(len(seen))
    return table[label]


def _own_pie(root: Path, name: str, scene: FakeScene) -> None:
    folder, file = root / "pie" / scene.split, f"{scene.number}.png"
    _write(folder, file, optical=scene.optical, optical_cloud=scene.clouded, sar=scene.sar, label=scene.label)


def _own_ddhr(root: Path, name: str, scene: FakeScene) -> None:
    folder, file = root / name / scene.split, f"{scene.number}.png"
    _write(folder, file, optical_cloud=scene.clouded, sar=scene.sar, label=scene.label)


def _own_oem(root: Path, name: str, scene: FakeScene) -> None:
    folder = root / "oem" / scene.split
    layers = {"optical": scene.optical, "optical_thick": scene.clouded, "optical_thin": (scene.clouded - 30)}
    for role, pixels in (layers | {"sar": scene.sar, "label": scene.label}).items():
        write_raster(folder / role / f"Area_{scene.number}.tif", pixels, **scene.place)


def _release(root: Path, name: str, scene: FakeScene) -> None:
    kind, suffix = name.split("_")[0], "jpg" if name == "ddhr_ch" else "png"
    folder = root / {"pie": "PIE_RGBSAR", "oem": "OEM"}.get(kind, f"DD{name[-2:].upper()}") / scene.split
    train_labels = {"pie": "D2masks6", "oem": "D2masks5class", "ddhr": "D2masks3class"}[kind]
    label = _seen_positions(scene.label, name) if scene.split == "train" else scene.label
    labels = "D2masks6" if kind == "pie" else train_labels if scene.split == "train" else "D2masks"
    sar = np.repeat(scene.sar[:, :, None], 3, axis=2)
    layers = {
        "pie": {"rgb": scene.optical, "rgb_clouds": scene.clouded, "sar": sar},
        "ddhr": {"rgb_clouds": scene.clouded, "sar": sar},
        "oem": {"rgb_cloud": scene.clouded, "rgb_cloud_thin": scene.clouded - 30, "imgs": sar},
    }[kind]
    _write(folder, f"{scene.number}.{suffix}", **layers)
    _write(folder, f"{scene.number}.png", **{labels: label})


def _public_pie(root: Path, name: str, scene: FakeScene) -> None:
    folder = root / "PIE-RGB-SAR"
    layers = {"rgb": scene.optical, "sar": scene.sar, "label": scene.label}
    for role, pixels in layers.items():
        write_raster(folder / role / f"{scene.number}.tif", pixels, crs=None, transform=None)
    _append(folder / f"{scene.split}.txt", f"{scene.number}\n")


def _public_ddhr(root: Path, name: str, scene: FakeScene) -> None:
    region = {"ddhr_sk": "korea", "ddhr_ch": "xian"}[name]
    folder, number = root / "DDHR-DATA" / region / "256_cloud", scene.number
    sar = np.repeat(scene.sar[:, :, None], 3, axis=2)
    _write(folder, f"{number}.jpg", GF2=scene.clouded, GF3=sar)
    path = folder / "label" / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    indexed = Image.fromarray(scene.label, mode="P")
    palette = [value for color in get_vocabulary(name).colors for value in color]
    indexed.putpalette(palette + [0] * (768 - len(palette)))  # a short one would be saved with 4 bits and clip 255
    indexed.save(path)
    if name == "ddhr_sk":
        line = " ".join(f"D:/DATA/{region}/256_cloud/{kind}/{number}" for kind in ("GF2", "GF3", "label"))
        line = line.replace(f"GF2/{number}", f"GF2/{number}.jpg").replace(f"GF3/{number}", f"GF3/{number}.jpg")
        _append(root / "DATA" / f"{scene.split}M_list.txt", f"{line}.png\n")


def _public_oem(root: Path, name: str, scene: FakeScene) -> None:
    stem = f"{'TrainArea' if scene.split == 'train' else 'ValArea'}_{scene.number}"
    stored = np.where(scene.label == 255, 0, scene.label + 1).astype(np.uint8)
    folder = root / "dfc25_track1_trainval" / scene.split
    for role, pixels in {"rgb_images": scene.optical, "sar_images": scene.sar, "labels": stored}.items():
        write_raster(folder / role / f"{stem}.tif", pixels, **scene.place)


def _write(folder: Path, file: str, **layers: np.ndarray) -> None:
    for name, pixels in layers.items():
        write_raster(folder / name / file, pixels)


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


_Writer = Callable[[Path, str, FakeScene], None]
_WRITERS: dict[tuple[str, str], _Writer] = {
    ("pie", "own"): _own_pie,
    ("ddhr", "own"): _own_ddhr,
    ("oem", "own"): _own_oem,
    ("pie", "release"): _release,
    ("ddhr", "release"): _release,
    ("oem", "release"): _release,
    ("pie", "public"): _public_pie,
    ("ddhr", "public"): _public_ddhr,
    ("oem", "public"): _public_oem,
}


def tree_names() -> Sequence[str]:
    """Return the data sets that `write_tree` knows."""
    return ("pie_cloud", "pie_clean", "ddhr_sk", "ddhr_ch", "oem_thick", "oem_thin", *OTHER_TREES)
