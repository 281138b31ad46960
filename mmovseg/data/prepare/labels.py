"""Label codes of public downloads: stored numbers or colours -> class ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mmovseg.data.prepare.rasters import Layer
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.errors import UserError

Color = tuple[int, int, int]

_MOST_UNKNOWN = 0.5  # of a label: edges between classes are spoiled first, and they are thin


@dataclass(frozen=True)
class LabelCode:
    """How a download writes its classes; a label raster of one band holds numbers, one of three or four holds colours.

    ids: stored number -> class id, or 255 for "ignore".
    colors: stored RGB -> class id, or 255.
    tolerance: for colours that lossy compression has changed: a colour is taken for the nearest of `colors`, if their
        three differences sum to at most this; others are ignored. 0 takes exact colours only and refuses others.
    """

    ids: Mapping[int, int] = field(default_factory=dict)
    colors: Mapping[Color, int] = field(default_factory=dict)
    tolerance: int = 0

    def decode(self, layer: Layer, source: str) -> Layer:
        """Return a layer of class ids, (H, W) uint8, 255 = ignore.

        Args:
            layer: as read; a fourth band (opacity) is ignored.
            source: file name for messages.

        Raises:
            UserError: a stored number or colour that the code does not list, most pixels have none of its colours, or
                another number of bands.
        """
        array = layer.array
        if array.ndim == 2:
            return layer.with_array(self._from_ids(array, source))
        if array.shape[2] in (3, 4):
            return layer.with_array(self._from_colors(array[:, :, :3], source))
        raise UserError(f"label '{source}' has {array.shape[2]} bands; one (numbers) or three (colours) were expected")

    def _from_ids(self, array: np.ndarray, source: str) -> np.ndarray:
        if not self.ids:
            raise UserError(f"label '{source}' holds numbers; this data set stores classes as colours")
        decoded = np.full(array.shape, IGNORE_LABEL, dtype=np.uint8)
        for value in np.unique(array):
            if int(value) != value or int(value) not in self.ids:
                known = ", ".join(str(known) for known in sorted(self.ids))
                raise UserError(f"label '{source}' has the value {value}; known: {known}")
            decoded[array == value] = self.ids[int(value)]
        return decoded

    def _from_colors(self, array: np.ndarray, source: str) -> np.ndarray:
        if not self.colors:
            raise UserError(f"label '{source}' holds colours; this data set stores classes as numbers")
        if self.tolerance > 0:
            return self._from_near_colors(array, source)
        packed = _pack(array)
        decoded = np.full(packed.shape, IGNORE_LABEL, dtype=np.uint8)
        codes = {int(_pack(np.array(color))): class_id for color, class_id in self.colors.items()}
        for value in np.unique(packed):
            if int(value) not in codes:
                color = (int(value) >> 16, int(value) >> 8 & 255, int(value) & 255)
                known = ", ".join(str(tuple(known)) for known in self.colors)
                raise UserError(f"label '{source}' has the colour {color}; known: {known}")
            decoded[packed == value] = codes[int(value)]
        return decoded

    def _from_near_colors(self, array: np.ndarray, source: str) -> np.ndarray:
        """Compare each distinct colour once: labels have few, even where compression has spoiled them."""
        values, places = np.unique(_pack(array), return_inverse=True)
        stored = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1)
        known = np.array(list(self.colors), dtype=np.int64)
        distance = np.abs(stored[:, None, :] - known[None]).sum(axis=2)
        ids = np.array(list(self.colors.values()), dtype=np.uint8)[distance.argmin(axis=1)]
        far = distance.min(axis=1) > self.tolerance
        ids[far] = IGNORE_LABEL
        share = float(far[places].mean())
        if share > _MOST_UNKNOWN:
            raise UserError(
                f"label '{source}': {share:.0%} of its pixels have none of the colours "
                f"{', '.join(str(tuple(color)) for color in self.colors)}; is it a label of this data set?"
            )
        return np.asarray(ids[places].reshape(array.shape[:2]))


def _pack(colors: np.ndarray) -> np.ndarray:
    wide = colors.astype(np.int64)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])
