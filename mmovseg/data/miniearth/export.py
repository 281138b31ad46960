"""MiniEarth on disk: GeoTIFF pairs, labels, captions, targets and a manifest, and the way back.

Layout of a folder: ``manifest.json`` and for each split ``optical/``, ``sar/``, ``label/`` with equal file names,
``captions.jsonl`` and ``targets.json`` (COCO). The same arguments give the same bytes; no time is stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import DatasetWriter
from rasterio.transform import Affine
from tqdm import tqdm

from mmovseg.data.miniearth.captions import ask
from mmovseg.data.miniearth.dataset import load_miniearth, scene_captions
from mmovseg.data.miniearth.domain import Domain, get_domain
from mmovseg.data.miniearth.regions import CLASS_NAMES, TARGET_CATEGORIES
from mmovseg.data.miniearth.world import VERSION, Scene, render
from mmovseg.data.sample import IGNORE_LABEL, DatasetDict
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError

CRS_NAME = "EPSG:32632"
ORIGIN_EAST_M = 300_000.0
ORIGIN_NORTH_M = 5_900_000.0
_KINDS = ("optical", "sar", "label")


def world_transform(row: int, col: int, gsd_m: float) -> Affine:
    """Return the transform of a window: world pixel (0, 0) lies at the origin in UTM zone 32, rows run southward."""
    return Affine(gsd_m, 0.0, ORIGIN_EAST_M + col * gsd_m, 0.0, -gsd_m, ORIGIN_NORTH_M - row * gsd_m)


def write_miniearth_folder(
    output: str | Path,
    *,
    splits: Sequence[str] = ("train", "val", "test"),
    num_scenes: int | None = None,
    size: int = 64,
    domain: str | Domain = "default",
    seed: int = 0,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Write scenes as files; the folder appears under its name only when it is complete.

    Args:
        output: folder to make; it must not exist or be empty.
        splits: which splits, each once.
        num_scenes: per split; None means 4000, 500 and 500.
        size: pixels per side.
        domain: name or value.
        seed: which world.
        show_progress: draw a progress bar on stderr.

    Returns:
        The manifest.

    Raises:
        UserError: `output` holds something already or cannot be made, or the arguments do not fit (`load_miniearth`).
    """
    output = Path(output)
    check_free(output)
    dicts = {
        split: load_miniearth(split, num_scenes=num_scenes, size=size, domain=domain, seed=seed)
        for split in dict.fromkeys(splits)
    }
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        with tqdm(total=sum(map(len, dicts.values())), unit="scene", disable=not show_progress) as bar:
            parts = {split: _write_split(partial / split, scenes, bar) for split, scenes in dicts.items()}
        manifest = _manifest(partial, parts, size, domain, seed)
        write_json(partial / "manifest.json", manifest)
        os.replace(partial, output)
    except OSError as error:
        raise UserError(f"cannot write MiniEarth to '{output}': {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def check_free(output: Path) -> None:
    """Raise `UserError` when `output` is a file, or a folder with something in it."""
    if output.exists() and not output.is_dir():
        raise UserError(f"output '{output}' is a file; name a folder")
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"output folder '{output}' is not empty; remove it or choose another")


def _write_split(folder: Path, scenes: Sequence[DatasetDict], bar: tqdm) -> dict[str, Any]:
    """Write one split; return its class shares and target counts."""
    for kind in _KINDS:
        (folder / kind).mkdir(parents=True)
    captions, images, annotations = [], [], []
    pixels = np.zeros(len(CLASS_NAMES), dtype=np.int64)
    for index, item in enumerate(scenes):
        world = item["world"]
        scene = render(world["domain"], world["row"], world["col"], item["height"], item["width"], seed=world["seed"])
        name = f"{item['image_id']}.tif"
        write_scene(scene, *(folder / kind / name for kind in _KINDS))
        pixels += np.bincount(scene.label.ravel(), minlength=len(CLASS_NAMES))
        captions.append(
            {
                "image_id": item["image_id"],
                "file": name,
                "captions": scene_captions(scene),
                "questions": ask(scene.shares, scene.targets),
                "world": {"row": scene.row, "col": scene.col},
            }
        )
        images.append({"id": index, "file_name": name, "height": item["height"], "width": item["width"]})
        annotations += [_annotation(target, index) for target in scene.targets]
        bar.update()
    for number, annotation in enumerate(annotations):
        annotation["id"] = number + 1
    lines = (json.dumps(line, ensure_ascii=False) for line in captions)
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(TARGET_CATEGORIES)]
    write_json(folder / "targets.json", {"images": images, "annotations": annotations, "categories": categories})
    return {
        "num_scenes": len(scenes),
        "class_share": {name: round(float(n / pixels.sum()), 6) for name, n in zip(CLASS_NAMES, pixels, strict=True)},
        "num_targets": len(annotations),
    }


def _annotation(target: dict[str, Any], image_id: int) -> dict[str, Any]:
    x0, y0, x1, y1 = target["box"]
    return {
        "image_id": image_id,
        "category_id": TARGET_CATEGORIES.index(target["category"]) + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }


def write_scene(scene: Scene, optical: Path, sar: Path, label: Path) -> None:
    """Write the three rasters of a scene as GeoTIFF with CRS, transform, band names, unit, nodata and colours."""
    height, width = scene.label.shape
    common = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "crs": CRS.from_string(CRS_NAME),
        "transform": world_transform(scene.row, scene.col, scene.domain.gsd_m),
        "compress": "deflate",
    }
    with rasterio.open(optical, "w", count=3, dtype="uint8", predictor=2, photometric="rgb", **common) as raster:
        raster.write(_bands_first(scene.optical))
        raster.descriptions = ("red", "green", "blue")
    channels = scene.domain.sar_channels
    with rasterio.open(sar, "w", count=len(channels), dtype="float32", predictor=3, **common) as raster:
        raster.write(_bands_first(scene.sar))
        describe_sar(raster, scene.domain)
    with rasterio.open(label, "w", count=1, dtype="uint8", nodata=IGNORE_LABEL, **common) as raster:
        raster.write(scene.label, 1)
        describe_label(raster)


def describe_sar(raster: DatasetWriter, domain: Domain, *, looks: float | None = None) -> None:
    """Write band names, unit, looks and radar band into a SAR raster; `looks` None takes those of the domain."""
    raster.descriptions = domain.sar_channels
    raster.units = (domain.sar_unit,) * len(domain.sar_channels)
    raster.update_tags(unit=domain.sar_unit, looks=domain.looks if looks is None else looks, radar_band=domain.band)


def describe_label(raster: DatasetWriter) -> None:
    """Write class names and colours into a label raster."""
    colors = get_vocabulary("miniearth", "clean").colors
    raster.write_colormap(1, {index: (*color, 255) for index, color in enumerate(colors)})
    raster.colorinterp = (ColorInterp.palette,)
    raster.update_tags(**{f"class_{index}": name for index, name in enumerate(CLASS_NAMES)})


def _bands_first(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def _manifest(
    root: Path, parts: dict[str, dict[str, Any]], size: int, domain: str | Domain, seed: int
) -> dict[str, Any]:
    seen = get_domain(domain)
    return {
        "name": "MiniEarth",
        "version": VERSION,
        "seed": seed,
        "size": size,
        "gsd_m": seen.gsd_m,
        "crs": CRS_NAME,
        "domain_name": domain if isinstance(domain, str) else None,
        "domain": seen.to_dict(),
        "classes": list(CLASS_NAMES),
        "ignore_label": IGNORE_LABEL,
        "sar_channels": list(seen.sar_channels),
        "sar_unit": seen.sar_unit,
        "splits": parts,
        "files": file_hashes(root),
    }


def file_hashes(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by relative path."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): _sha256(path) for path in paths}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(root: str | Path) -> dict[str, Any]:
    """Return the manifest of a folder that `write_miniearth_folder` wrote.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = Path(root) / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"'{root}' is no MiniEarth folder: '{path}' cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"manifest '{path}' is not valid JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("name") != "MiniEarth":
        raise UserError(f"manifest '{path}' does not describe a MiniEarth folder")
    return manifest


def verify_miniearth_folder(root: str | Path) -> int:
    """Compare every file with the manifest and return how many there are.

    Raises:
        UserError: a file is missing or differs; the message names the first one.
    """
    files = read_manifest(root)["files"]
    for name, expected in files.items():
        path = Path(root) / name
        if not path.is_file():
            raise UserError(f"MiniEarth folder '{root}' lacks the file '{name}'")
        if _sha256(path) != expected:
            raise UserError(f"file '{path}' differs from the hash in the manifest")
    return len(files)


def load_miniearth_folder(root: str | Path, split: str) -> list[DatasetDict]:
    """Return dataset dicts with the paths of a written folder; the ordinary `FileReader` reads them.

    Args:
        root: folder with `manifest.json`.
        split: one of the splits in it.

    Raises:
        UserError: not such a folder, or the split is not in it.
    """
    manifest = read_manifest(root)
    if split not in manifest["splits"]:
        raise UserError(f"MiniEarth folder '{root}' has no split '{split}'; it has: {', '.join(manifest['splits'])}")
    folder = Path(root) / split
    try:
        lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
        items = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UserError(f"captions '{folder / 'captions.jsonl'}' cannot be read: {error}") from error
    return [_folder_dict(folder, item, manifest) for item in items]


def _folder_dict(folder: Path, item: dict[str, Any], manifest: dict[str, Any]) -> DatasetDict:
    return {
        "file_name": str(folder / "optical" / item["file"]),
        "sar_file_name": str(folder / "sar" / item["file"]),
        "sem_seg_file_name": str(folder / "label" / item["file"]),
        "height": manifest["size"],
        "width": manifest["size"],
        "image_id": item["image_id"],
        "gsd_m": manifest["gsd_m"],
        "cloud_fraction": 0.0,
        "captions": item["captions"],
    }
