"""A flood product: where water stands after an event, where it stood before, and how many hectares that makes.

Two ways lead to it. `combine_dates` compares two maps of water, one a date, made by any model that can be asked for
water. `from_flood_classes` takes the map of a model that was trained to tell flooded from dry with both dates at hand.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

from mmovseg.checkpoint.save import atomic_write
from mmovseg.errors import UserError
from mmovseg.inference.area import class_areas
from mmovseg.inference.grid import Grid

DRY, PERMANENT_WATER, FLOODED, WATER_UNDATED, NO_DATA = 0, 1, 2, 3, 255

CLASSES: dict[int, tuple[str, tuple[int, int, int]]] = {
    DRY: ("dry", (214, 208, 176)),
    PERMANENT_WATER: ("permanent water", (24, 58, 140)),
    FLOODED: ("flooded", (66, 170, 245)),
    WATER_UNDATED: ("water, state before unknown", (120, 120, 200)),
    NO_DATA: ("no data", (255, 255, 255)),
}
"""Value -> name and colour of a flood product."""

DEFINITION = {
    "permanent water": "water on both dates",
    "flooded": "water on the later date and not on the earlier one, or called flooded by a model that saw both",
    "water, state before unknown": "water on the later date where the earlier one is missing",
    "no data": "no valid pixel on the later date",
}


def combine_dates(
    water_after: np.ndarray,
    valid_after: np.ndarray,
    water_before: np.ndarray | None = None,
    valid_before: np.ndarray | None = None,
) -> np.ndarray:
    """Turn two maps of water into a flood product.

    Args:
        water_after, water_before: (H, W) bool. No earlier date: every water pixel becomes `WATER_UNDATED`.
        valid_after, valid_before: (H, W) bool, False where the date holds no data; None = all valid.

    Returns:
        (H, W) uint8, values of `CLASSES`.
    """
    if water_before is None:
        water_before, valid_before = np.zeros_like(water_after), np.zeros_like(water_after)
    known = np.ones_like(water_after) if valid_before is None else valid_before
    product = np.full(water_after.shape, DRY, dtype=np.uint8)
    product[water_after & ~known] = WATER_UNDATED
    product[water_after & known & water_before] = PERMANENT_WATER
    product[water_after & known & ~water_before] = FLOODED
    product[~valid_after] = NO_DATA
    return product


def from_flood_classes(flooded: np.ndarray, valid: np.ndarray, permanent: np.ndarray | None = None) -> np.ndarray:
    """Turn the map of a flood model into a flood product.

    Args:
        flooded: (H, W) bool.
        valid: (H, W) bool.
        permanent: (H, W) bool where the model knows permanent water; None leaves it among the dry, as OMBRIA does.

    Returns:
        (H, W) uint8, values of `CLASSES`.
    """
    product = np.where(flooded, FLOODED, DRY).astype(np.uint8)
    if permanent is not None:
        product[permanent & ~flooded] = PERMANENT_WATER
    product[~valid] = NO_DATA
    return product


def write_product(path: str | Path, product: np.ndarray, grid: Grid, *, tags: Mapping[str, str] | None = None) -> Path:
    """Write a flood product as a one-band GeoTIFF with colour table and class names.

    Args:
        path: ends in .tif.
        product: (H, W) uint8, values of `CLASSES`.
        grid: kept as it is.
        tags: further facts for the file's tags.

    Raises:
        UserError: the path has another ending, or the product another size than the grid.
    """
    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"a flood product is a GeoTIFF, so '{path}' must end in .tif")
    if product.shape != (grid.height, grid.width):
        raise ValueError(f"product {product.shape} does not fit the grid {(grid.height, grid.width)}")
    profile: dict[str, Any] = {"driver": "GTiff", "height": grid.height, "width": grid.width, "count": 1}
    profile |= {"dtype": "uint8", "nodata": NO_DATA, "compress": "deflate"}
    profile |= {"crs": grid.crs, "transform": grid.transform}
    with atomic_write(path) as temporary, rasterio.open(temporary, "w", **profile) as target:
        target.write(product, 1)
        target.write_colormap(1, {value: (*color, 255) for value, (_, color) in CLASSES.items()})
        target.colorinterp = [ColorInterp.palette]
        target.set_band_description(1, "flood")
        target.update_tags(**dict(tags or {}))
        target.update_tags(1, **{f"CLASS_{value}": name for value, (name, _) in CLASSES.items()})
    return path


def area_report(product: np.ndarray, grid: Grid, *, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Measure a flood product.

    Returns:
        json-able: ``classes`` (name -> value, pixels, hectares; all of `CLASSES`, 0 where absent), ``crs``, `facts`,
        and the definition of the classes.

    Raises:
        UserError: the grid has no coordinate system, or areas are unknown in it.
    """
    hectares = class_areas(product, crs=grid.crs, transform=grid.transform, source=grid.source)
    classes = {
        name: {
            "value": value,
            "pixels": int((product == value).sum()),
            "hectares": round(hectares.get(value, 0.0), 4),
        }
        for value, (name, _) in CLASSES.items()
    }
    return {"classes": classes, "crs": str(grid.crs), **dict(facts or {}), "definition": DEFINITION}


def write_report(report: Mapping[str, Any], json_path: str | Path, csv_path: str | Path) -> None:
    """Write an area report as JSON, and its classes as CSV with the columns class, value, pixels, hectares."""
    with atomic_write(json_path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "value", "pixels", "hectares"])
    for name, row in report["classes"].items():
        writer.writerow([name, row["value"], row["pixels"], f"{row['hectares']:.4f}"])
    with atomic_write(csv_path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
