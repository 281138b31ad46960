"""The files that a scene is written to: one layer each, since a TIFF with a colour table has one band."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError

RGBA = tuple[int, int, int, int]
Resampling = Literal["mode", "average", "nearest"]

SCORE_SCALE = 0.004
"""Probabilities are stored as whole multiples of this, so that 1.0 is 250 and 255 is left for nodata."""
SCORE_NODATA = 255

BOTH, ONLY_SAR, ONLY_OPTICAL, NEITHER = 0, 1, 2, 3
QUALITY: dict[int, tuple[str, RGBA]] = {
    BOTH: ("both sensors", (46, 125, 50, 255)),
    ONLY_SAR: ("only SAR: optical clouded or missing", (251, 192, 45, 255)),
    ONLY_OPTICAL: ("only optical: SAR missing", (30, 136, 229, 255)),
    NEITHER: ("no data", (33, 33, 33, 255)),
}
"""Value -> name and colour of the quality layer."""

_SMALL_NODATA, _LARGE_NODATA = 255, 65535


@dataclass(frozen=True)
class Layer:
    """One output file of a scene.

    Args:
        name: key of its arrays.
        suffix: goes between stem and ending of the file name; "" is the main file.
        dtype: ``uint8`` or ``uint16``.
        bands: how many.
        nodata: value that is no data, None when every value is.
        descriptions: one text a band.
        colormap: value -> red, green, blue, alpha; for one band only.
        scale: stored value times this is the quantity.
        band_tags: tags of every band, for example ``CLASS_0``.
        overview_resampling: how the smaller copies inside the file are made.
        packed_share: share of the raw bytes that is left after compression in an ordinary scene, for the estimate of
            the disk space.
    """

    name: str
    suffix: str
    dtype: str
    bands: int
    nodata: int | None
    descriptions: tuple[str, ...]
    colormap: Mapping[int, RGBA] | None = None
    scale: float | None = None
    band_tags: Mapping[str, str] = field(default_factory=dict)
    overview_resampling: Resampling = "nearest"
    packed_share: float = 0.5

    def path_of(self, output: str | Path) -> Path:
        """Return the layer's file when the main one is `output`: ``map.tif`` -> ``map.confidence.tif``."""
        output = Path(output)
        return output.with_name(f"{output.stem}.{self.suffix}{output.suffix}") if self.suffix else output

    def raw_bytes(self, pixels: int) -> int:
        """Return the size of `pixels` without compression."""
        return pixels * self.bands * np.dtype(self.dtype).itemsize


def label_layer(vocabulary: Vocabulary) -> Layer:
    """Return the layer of class ids: one byte with nodata 255, two bytes with nodata 65535 from 256 classes on.

    Raises:
        UserError: more classes than two bytes can tell apart.
    """
    count = len(vocabulary)
    if count > _LARGE_NODATA:
        raise UserError(f"a map holds at most {_LARGE_NODATA} classes, but {count} are asked for")
    small = count <= _SMALL_NODATA
    nodata = _SMALL_NODATA if small else _LARGE_NODATA
    colors: dict[int, RGBA] = {value: (*color, 255) for value, color in enumerate(vocabulary.colors)}
    return Layer(
        name="labels",
        suffix="",
        dtype="uint8" if small else "uint16",
        bands=1,
        nodata=nodata,
        descriptions=("class",),
        colormap=colors | {nodata: (0, 0, 0, 0)} if small else colors,
        band_tags={f"CLASS_{value}": name for value, name in enumerate(vocabulary.names)},
        overview_resampling="mode",
        packed_share=0.1,
    )


def confidence_layer() -> Layer:
    """Return the layer of the winner's probability."""
    return Layer(
        name="confidence",
        suffix="confidence",
        dtype="uint8",
        bands=1,
        nodata=SCORE_NODATA,
        descriptions=("probability of the class",),
        scale=SCORE_SCALE,
        overview_resampling="average",
        packed_share=0.6,
    )


def quality_layer() -> Layer:
    """Return the layer that says which sensors see a pixel, values of `QUALITY`."""
    return Layer(
        name="quality",
        suffix="quality",
        dtype="uint8",
        bands=1,
        nodata=None,
        descriptions=("sensors that see the pixel",),
        colormap={value: color for value, (_, color) in QUALITY.items()},
        band_tags={f"CLASS_{value}": name for value, (name, _) in QUALITY.items()},
        overview_resampling="mode",
        packed_share=0.02,
    )


def probability_layer(vocabulary: Vocabulary) -> Layer:
    """Return the layer with one band of probabilities a class."""
    return Layer(
        name="probabilities",
        suffix="probabilities",
        dtype="uint8",
        bands=len(vocabulary),
        nodata=SCORE_NODATA,
        descriptions=tuple(vocabulary.names),
        scale=SCORE_SCALE,
        overview_resampling="average",
        packed_share=0.5,
    )
