"""Write tiny fake rasters and paired data sets to disk, in the formats that real ones come in."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from mmovseg.data.sar import db_to_amplitude8, db_to_linear

OpticalFormat = Literal["png", "tif16", "tif_float"]
SarFormat = Literal["tif_db", "tif_linear", "png8"]

_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP"}


@dataclass(frozen=True)
class FakePairs:
    """A written data set: its folders, its dataset dicts, and what `FileReader` has to be told about it.

    truth: one dict per pair with the arrays that were meant: `optical` (H, W, 3) 0..255, `sar_db` (H, W, P) with NaN,
        `sem_seg` (H, W).
    """

    optical_dir: Path
    sar_dir: Path
    label_dir: Path
    dicts: list[dict[str, Any]]
    reader_options: dict[str, Any]
    truth: list[dict[str, np.ndarray]]


def write_raster(path: str | Path, array: np.ndarray, **profile: Any) -> Path:
    """Write an array as a raster in the format of the file's extension (``.tif .tiff .png .jpg .bmp``).

    Args:
        path: its folder is made if needed. A ``.tif`` is placed on a 10 m grid in UTM zone 31N, a ``.tiff`` is not.
        array: (H, W) or (H, W, B), any dtype that the format knows.
        profile: further options of `rasterio.open`, for example `nodata`.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = array[:, :, None] if array.ndim == 2 else array
    options: dict[str, Any] = {"driver": _DRIVERS[path.suffix], "dtype": bands.dtype, "count": bands.shape[2]}
    options |= {"height": bands.shape[0], "width": bands.shape[1]}
    if path.suffix == ".tif":
        options |= {"crs": "EPSG:32631", "transform": Affine(10.0, 0.0, 600000.0, 0.0, -10.0, 5700000.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **(options | profile)) as file:
            file.write(np.ascontiguousarray(bands.transpose(2, 0, 1)))
    return path


def write_pairs(
    root: str | Path,
    *,
    count: int = 3,
    height: int = 24,
    width: int = 32,
    num_classes: int = 7,
    optical: OpticalFormat = "png",
    sar: SarFormat = "tif_db",
    with_nan: bool = True,
    seed: int = 0,
) -> FakePairs:
    """Write a data set of pairs whose classes differ in colour and backscatter, so that models can learn from it.

    Args:
        root: gets the folders `optical`, `sar` and `label`.
        count: number of pairs; the stems are ``000000``, ``000001``, ...
        height: of every raster, pixels.
        width: of every raster, pixels.
        num_classes: labels are 0..num_classes - 1, in blocks of 8 pixels.
        optical: 8-bit PNG; GeoTIFF of uint16 reflectance times 10,000; GeoTIFF of float32 reflectance.
        sar: GeoTIFF of (VV, VH) in dB or in linear power; 8-bit amplitude PNG of VV.
        with_nan: put a hole of NaN into the SAR GeoTIFFs, rows 2..4 and columns 3..7.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    colors, levels = rng.uniform(30, 220, (num_classes, 3)), rng.uniform(-20, 0, (num_classes, 2))
    folder = Path(root)
    suffixes = {
        "file_name": ("optical", "png" if optical == "png" else "tif"),
        "sar_file_name": ("sar", "png" if sar == "png8" else "tif"),
        "sem_seg_file_name": ("label", "png"),
    }
    dicts: list[dict[str, Any]] = []
    truth: list[dict[str, np.ndarray]] = []
    for index in range(count):
        stem = f"{index:06d}"
        blocks = rng.integers(num_classes, size=(-(-height // 8), -(-width // 8)))
        label = np.kron(blocks, np.ones((8, 8), dtype=np.int64))[:height, :width].astype(np.uint8)
        image = np.clip(colors[label] + rng.normal(0, 8, (height, width, 3)), 0, 255).round()
        sar_db = (levels[label] + rng.normal(0, 1, (height, width, 2))).astype(np.float32)
        if sar == "png8":
            sar_db = sar_db[:, :, :1]
        elif with_nan:
            sar_db[2:5, 3:8] = np.nan
        paths = {key: folder / name / f"{stem}.{suffix}" for key, (name, suffix) in suffixes.items()}
        write_raster(paths["file_name"], _store_optical(image, optical))
        write_raster(paths["sar_file_name"], _store_sar(sar_db, sar))
        write_raster(paths["sem_seg_file_name"], label)
        dicts.append({key: str(path) for key, path in paths.items()} | {"image_id": stem})
        truth.append({"optical": image, "sar_db": sar_db, "sem_seg": label})
    options: dict[str, Any] = {"optical_range": (0.0, 0.3)} if optical == "tif_float" else {}
    options["sar_unit_in"] = {"tif_db": "db", "tif_linear": "linear", "png8": "amplitude8"}[sar]
    return FakePairs(folder / "optical", folder / "sar", folder / "label", dicts, options, truth)


def _store_optical(image: np.ndarray, kind: OpticalFormat) -> np.ndarray:
    if kind == "png":
        return image.astype(np.uint8)
    reflectance = image / 255.0 * 0.3
    return np.rint(reflectance * 10000).astype(np.uint16) if kind == "tif16" else reflectance.astype(np.float32)


def _store_sar(sar_db: np.ndarray, kind: SarFormat) -> np.ndarray:
    if kind == "png8":
        return db_to_amplitude8(sar_db).astype(np.uint8)
    return db_to_linear(sar_db) if kind == "tif_linear" else sar_db
