"""What a map says in numbers: pixels and hectares of every class, streamed from the finished file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.inference.area import HECTARE_M2, row_pixel_areas
from mmovseg.inference.scene.cog import CACHE_BYTES
from mmovseg.inference.scene.disk import GDAL_ERRORS


def class_report(label_path: str | Path, vocabulary: Vocabulary) -> dict[str, dict[str, Any]]:
    """Measure the classes of a map, a band of rows at a time.

    Args:
        label_path: one band of class ids with a nodata value, as `PartStore` writes it.
        vocabulary: its classes, id = position.

    Returns:
        Name -> ``value``, ``pixels``, and ``hectares``, which is None where areas are unknown (`area_note` says why).
        All classes, in their order; nodata belongs to none.

    Raises:
        UserError: the file cannot be read, or holds a value that is neither a class nor nodata.
    """
    count = len(vocabulary)
    pixels = np.zeros(count, dtype=np.int64)
    square_metres = np.zeros(count)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        row_m2 = _row_areas(label_path)[0]
        for start, labels, nodata in _rows(label_path):
            for row, values in enumerate(labels, start):
                found = np.bincount(values, minlength=count)
                if nodata is not None and nodata < len(found):
                    found[nodata] = 0
                if found[count:].any():
                    raise UserError(
                        f"map '{label_path}' holds the value {count + int(found[count:].nonzero()[0][0])}, "
                        f"but only {count} classes are named"
                    )
                pixels += found[:count]
                if row_m2 is not None:
                    square_metres += found[:count] * row_m2[row]
    return {
        name: {
            "value": value,
            "pixels": int(pixels[value]),
            "hectares": None if row_m2 is None else round(float(square_metres[value] / HECTARE_M2), 4),
        }
        for value, name in enumerate(vocabulary.names)
    }


def area_note(label_path: str | Path) -> str | None:
    """Return the sentence that says why a raster has no hectares, None when it has. Raises as `class_report`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return _row_areas(label_path)[1]


def _row_areas(path: str | Path) -> tuple[np.ndarray | None, str | None]:
    """Return (H,) the square metres of a pixel of each row, or the reason why that is unknown."""
    try:
        with rasterio.open(path) as source:
            shape, crs, transform = source.shape, source.crs, source.transform
    except GDAL_ERRORS as error:
        raise UserError(f"map '{path}' cannot be opened: it is missing, damaged, or no raster") from error
    try:
        return row_pixel_areas(shape, crs=crs, transform=transform, source=str(path)), None
    except UserError as error:
        return None, str(error)


def _rows(path: str | Path) -> Iterator[tuple[int, np.ndarray, int | None]]:
    """Yield first row, (rows, W) labels of one row of tiles, and the nodata value."""
    try:
        with rasterio.open(path) as source:
            nodata = None if source.nodata is None else int(source.nodata)
            step = source.block_shapes[0][0]
            for start in range(0, source.height, step):
                window = Window(0, start, source.width, min(step, source.height - start))
                yield start, source.read(1, window=window), nodata
    except GDAL_ERRORS as error:
        raise UserError(f"map '{path}' is damaged or cut off: its pixels cannot be read") from error
