"""Small trees of the public data sets of images and text, as their publishers give them, for the prepare scripts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmovseg.testing.fakes import write_raster

SARDET_CATEGORIES = ("ship", "aircraft", "car", "tank", "bridge", "harbor")
"""As SARDet-100K numbers them, from 0."""

CAPTION_TREES = {
    "rsicd": ("RSICD_images", "dataset_rsicd.json", ".jpg"),
    "rsitmd": ("images", "dataset_RSITMD.json", ".tif"),
    "ucm": ("UCM_captions/imgs", "UCM_captions/dataset.json", ".tif"),
    "sydney": ("Sydney_captions/imgs", "Sydney_captions/dataset.json", ".tif"),
}
"""Set of captions -> folder of the images, JSON file, suffix of the images."""


def sar_image(name: str, size: int = 32, boxes: Sequence[Sequence[float]] = ()) -> np.ndarray:
    """Return (size, size) uint8 speckle that follows from the name, bright in its boxes (x, y, width, height)."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    image = np.clip(rng.gamma(2.0, 15.0, (size, size)), 0, 255)
    for x, y, width, height in boxes:
        image[int(y) : int(y + height), int(x) : int(x + width)] = 250
    return image.astype(np.uint8)


def optical_image(name: str, size: int = 32) -> np.ndarray:
    """Return (size, size, 3) uint8, of one colour with noise, both following from the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noise = rng.integers(-20, 21, (size, size, 3))
    return np.clip(rng.integers(40, 216, 3) + noise, 0, 255).astype(np.uint8)


def coco_content(
    names: Sequence[str], *, size: int = 32, categories: Mapping[int, str] | None = None, first_id: int = 0
) -> dict[str, Any]:
    """Return a COCO file about images with one to three objects each.

    Args:
        names: of the image files.
        size: of each image, pixels.
        categories: number -> name; they take turns. None = ship, numbered 1.
        first_id: number of the first image.
    """
    kinds = list((categories or {1: "ship"}).items())
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        images.append({"id": first_id + number, "file_name": name, "height": size, "width": size})
        for part in range(1 + number % 3):
            box = [2 + 9 * part, 3 + 4 * part, 6, 4]
            kind = kinds[(number + part) % len(kinds)][0]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": first_id + number,
                    "category_id": kind,
                    "bbox": box,
                    "area": 24,
                    "iscrowd": 0,
                    "segmentation": [[box[0], box[1], box[0] + 6, box[1], box[0] + 6, box[1] + 4, box[0], box[1] + 4]],
                }
            )
    listed = [{"id": key, "name": name} for key, name in kinds]
    return {"info": {}, "images": images, "annotations": annotations, "categories": listed}


def write_hrsid(root: str | Path, *, train: int = 6, test: int = 3, size: int = 32) -> Path:
    """Write HRSID: crops of three scenes in both splits, image numbers that both splits use, shores in two lists."""
    folder = Path(root) / "HRSID_JPG"
    shores: dict[str, list[dict[str, Any]]] = {"inshore": [], "offshore": []}
    for split, count in (("train", train), ("test", test)):
        names = [f"P{1 + n % 3:04d}_{n * 800}_{n * 800 + 800}_{split}_0.jpg" for n in range(count)]
        content = coco_content(names, size=size)
        _write_json(folder / "annotations" / f"{split}2017.json", content)
        _write_sar(folder / "JPEGImages", content, grey_rgb=True)
        for image in content["images"]:
            shores["inshore" if image["id"] % 4 == 0 else "offshore"].append(image)
    for shore, images in shores.items():
        content = coco_content([image["file_name"] for image in images])
        _write_json(folder / "inshore_offshore" / f"{shore}.json", content)
    return Path(root)


def write_ssdd(root: str | Path, *, size: int = 32) -> Path:
    """Write SSDD: images 1 to 10, those that end in 1 or 9 are test, in images of two sizes."""
    folder = Path(root) / "Official-SSDD-OPEN" / "BBox_SSDD" / "coco_style"
    numbers = range(1, 11)
    parts = {
        "test": [number for number in numbers if number % 10 in (1, 9)],
        "train": [number for number in numbers if number % 10 not in (1, 9)],
    }
    for split, chosen in parts.items():
        content = coco_content([f"{number:06d}.jpg" for number in chosen], size=size, first_id=chosen[0])
        _write_json(folder / "annotations" / f"{split}.json", content)
        _write_sar(folder / "images" / split, content)
    for shore, number in (("inshore", 1), ("offshore", 9)):
        _write_json(folder / "annotations" / f"test_{shore}.json", coco_content([f"{number:06d}.jpg"]))
    return Path(root)


def write_sardet100k(root: str | Path, *, count: int = 6, size: int = 32) -> Path:
    """Write SARDet-100K: three formats side by side, six categories numbered from 0, a box over the edge."""
    folder = Path(root) / "SARDet_100K"
    for first, split in enumerate(("train", "val", "test")):
        names = [f"{first * 1000 + n:07d}{('.jpg', '.png', '.bmp')[n % 3]}" for n in range(count)]
        content = coco_content(names, size=size, categories=dict(enumerate(SARDET_CATEGORIES)))
        content["annotations"][0]["bbox"] = [-4, 3, 10, 4]
        _write_json(folder / "Annotations" / f"{split}.json", content)
        _write_sar(folder / "JPEGImages" / split, content)
    return Path(root)


def write_osdataset(root: str | Path, *, sizes: Sequence[int] = (256, 512), pixels: int = 32, count: int = 3) -> Path:
    """Write OSdataset with `pixels` a side, whatever the folder is called."""
    for size in sizes:
        for split in ("train", "val", "test"):
            folder = Path(root) / "OSdataset" / str(size) / split
            for number in range(1, count + 1):
                name = f"{size}/{split}/{number}"
                write_raster(folder / f"opt{number}.png", optical_image(name, pixels))
                write_raster(folder / f"sar{number}.png", sar_image(name, pixels))
    return Path(root)


def write_qxs_saropt(root: str | Path, *, numbers: Sequence[int] = tuple(range(1, 41)), pixels: int = 32) -> Path:
    """Write QXS-SAROPT with these numbers."""
    folder = Path(root) / "QXSLAB_SAROPT"
    for number in numbers:
        write_raster(folder / "opt_256_oc_0.2" / f"{number}.png", optical_image(str(number), pixels))
        write_raster(folder / "sar_256_oc_0.2" / f"{number}.png", sar_image(str(number), pixels))
    return Path(root)


def caption_content(name: str, *, per_split: int = 4) -> dict[str, Any]:
    """Return the JSON of a set of captions, five sentences an image."""
    suffix = CAPTION_TREES[name][2]
    images = []
    for split in ("train", "test") if name == "rsitmd" else ("train", "val", "test"):
        for number in range(1, per_split + 1):
            raw = [f"{count} planes are in the {split} airport number {number} ." for count in range(1, 6)]
            sentences = [{"raw": text, "tokens": text.split()} for text in raw]
            images.append({"filename": f"{split}_{number}{suffix}", "split": split, "sentences": sentences})
    return {"dataset": name, "images": images}


def write_captioned(name: str, root: str | Path, *, per_split: int = 4, as_text: bool = False) -> Path:
    """Write a set of captions.

    Args:
        name: of `CAPTION_TREES`.
        root: gets the tree.
        per_split: images of each split.
        as_text: write the text files of public retrieval code instead of the JSON: train with val, a line of names an
            image in train and a line a caption in test.
    """
    folder, file, _ = CAPTION_TREES[name]
    content = caption_content(name, per_split=per_split)
    for image in content["images"]:
        write_raster(Path(root) / folder / image["filename"], optical_image(image["filename"]), **_PLAIN)
    if not as_text:
        _write_json(Path(root) / file, content)
        return Path(root)
    for split, of in (("train", ("train", "val")), ("test", ("test",))):
        chosen = [image for image in content["images"] if image["split"] in of]
        lines = [sentence["raw"] for image in chosen for sentence in image["sentences"]]
        repeat = 1 if split == "train" else 5
        names = [image["filename"] for image in chosen for _ in range(repeat)]
        text = Path(root) / f"{name}_precomp"
        text.mkdir(parents=True, exist_ok=True)
        (text / f"{split}_caps.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (text / f"{split}_filename.txt").write_text("".join(f"{line}\n" for line in names), encoding="utf-8")
    return Path(root)


_PLAIN: dict[str, Any] = {"crs": None, "transform": None}  # these sets have no georeference


def _write_sar(folder: Path, content: Mapping[str, Any], *, grey_rgb: bool = False) -> None:
    for image in content["images"]:
        boxes = [entry["bbox"] for entry in content["annotations"] if entry["image_id"] == image["id"]]
        pixels = sar_image(image["file_name"], image["height"], boxes)
        write_raster(folder / image["file_name"], np.repeat(pixels[:, :, None], 3, axis=2) if grey_rgb else pixels)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
