"""An open raster of any format that GDAL knows, whose every failure is one sentence that names the file."""

from __future__ import annotations

import os
import stat
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from mmovseg.errors import UserError, one_line

_PNG_END = b"IEND"
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True)
class Scaling:
    """What a file declares its numbers to stand for, band by band: scale * number + offset."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """(..., B) as stored -> float32, or complex64 of complex numbers."""
        kind = np.result_type(stored.dtype, np.float32)  # wide integers and doubles are scaled in double precision
        values = stored * np.asarray(self.scales, dtype=kind) + np.asarray(self.offsets, dtype=kind)
        return values.astype(np.complex64 if np.iscomplexobj(values) else np.float32, copy=False)

    def __str__(self) -> str:
        scales, offsets = (", ".join(f"{v:g}" for v in dict.fromkeys(part)) for part in (self.scales, self.offsets))
        return f"scale {scales} and offset {offsets}"


class Raster:
    """A raster opened for reading; a context manager.

    Args:
        path: of anything that rasterio opens.
        role: what it is in the words of a sentence: ``optical``, ``SAR``, ``label``.

    Raises:
        UserError: on entering: it is missing, no regular file, damaged, of an unknown format, of a name that is not
            UTF-8, or cut off where that shows without reading pixels.
    """

    def __init__(self, path: str | Path, role: str) -> None:
        self.path, self.role = str(path), role

    def __enter__(self) -> Raster:
        self._refuse_pipes()
        # GDAL reads a cut-off JPEG as grey without complaint unless told otherwise.
        self._env = rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING="TRUE")
        self._env.__enter__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self.source = rasterio.open(self.path)
        except RasterioError as error:
            self._env.__exit__(None, None, None)
            raise UserError(f"{self.role} raster '{self.path}' {self._reason()}") from error
        except UnicodeEncodeError as error:
            self._env.__exit__(None, None, None)
            raise UserError(
                f"{self.role} raster '{one_line(self.path)}' cannot be opened, as its name is not UTF-8; rename it"
            ) from error
        if self.source.driver == "PNG" and os.path.isfile(self.path) and not png_is_whole(self.path):
            self.__exit__()
            raise UserError(f"{self.role} raster '{self.path}' is damaged or cut off: it lacks the end of a PNG file")
        if self.source.driver == "VRT" and os.path.isfile(self.path) and _has_code(self.path):
            self.__exit__()
            raise UserError(f"{self.role} raster '{self.path}' is a VRT with a program inside, which is never run")
        return self

    def __exit__(self, *exception: object) -> None:
        self.source.close()
        self._env.__exit__(None, None, None)

    def _refuse_pipes(self) -> None:
        """Opening a pipe waits for a writer, for ever if there is none."""
        try:
            mode = os.stat(self.path).st_mode
        except (OSError, ValueError):
            return  # missing, or an address that only GDAL understands
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UserError(f"{self.role} raster '{self.path}' is a pipe or a device, not a file")
        if stat.S_ISREG(mode) and os.access(self.path, os.R_OK) and _is_bigtiff_without_directory(self.path):
            raise UserError(f"{self.role} raster '{self.path}' {self._reason()}")

    def _reason(self) -> str:
        if "://" in self.path or self.path.startswith("/vsi"):
            return "cannot be opened"
        if not os.path.exists(self.path):
            return "does not exist"
        if os.path.isdir(self.path):
            return "is a folder, not a file"
        if not os.access(self.path, os.R_OK):
            return "may not be read (permission denied)"
        if os.path.getsize(self.path) == 0:
            return "is empty (0 bytes)"
        return "is not a readable raster (damaged, cut off, or another format)"

    def data_bands(self) -> list[int]:
        """1-based numbers of the bands that are not alpha."""
        kinds = self.source.colorinterp
        return [band for band, kind in zip(self.source.indexes, kinds, strict=True) if kind != ColorInterp.alpha]

    def rgb_bands(self, bands: Sequence[int] | None) -> list[int]:
        """Resolve the bands to show as RGB: one (grey or palette) or three.

        Raises:
            UserError: another number of bands was named, or the file has several and does not say which are RGB.
        """
        if bands is not None:
            if len(bands) not in (1, 3):
                raise UserError(f"optical bands must be one or three numbers, got {list(bands)}")
            return list(bands)
        present = self.data_bands()
        if len(present) in (1, 3):
            return present
        kinds = list(self.source.colorinterp)
        if all(kind in kinds for kind in _RGB):
            return [kinds.index(kind) + 1 for kind in _RGB]
        raise UserError(
            f"optical raster '{self.path}' has {len(present)} bands and does not say which are red, green and blue; "
            "name them, for example bands=(4, 3, 2) (on a command line --optical-bands 4 3 2)"
        )

    def palette(self) -> np.ndarray | None:
        """(256, 3) uint8 colours if the first band holds palette indices, else None."""
        if self.source.colorinterp[0] != ColorInterp.palette:
            return None
        colors = np.zeros((256, 3), dtype=np.uint8)
        for index, color in self.source.colormap(1).items():
            colors[index] = color[:3]
        return colors

    def check_bands(self, bands: Sequence[int]) -> None:
        """Raise `UserError` when a band is not there."""
        missing = [band for band in bands if band not in self.source.indexes]
        if missing:
            raise UserError(f"{self.role} raster '{self.path}' has {self.source.count} bands, no band {missing[0]}")

    def scaling(self, bands: Sequence[int]) -> Scaling | None:
        """Return what the file declares the numbers of some bands to stand for, None if themselves.

        Raises:
            UserError: a scale is 0, or a number is not finite.
        """
        declared = self.source.scales, self.source.offsets
        scales, offsets = (tuple(part[band - 1] for band in bands) for part in declared)
        if all(scale == 1.0 for scale in scales) and not any(offsets):
            return None
        if not np.isfinite([*scales, *offsets]).all() or 0.0 in scales:
            raise UserError(
                f"{self.role} raster '{self.path}' declares scales {scales} and offsets {offsets}, which tell nothing; "
                "mend them, for example with gdal_edit.py -scale 1 -offset 0"
            )
        return Scaling(scales, offsets)

    @cached_property
    def may_have_gaps(self) -> bool:
        """Whether the file declares nodata, a mask or alpha for any band; NaN is a gap without that."""
        return any(flags != [MaskFlags.all_valid] for flags in self.source.mask_flag_enums)

    def read(
        self, bands: Sequence[int], *, every_band: bool, window: Window | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read pixels.

        Args:
            bands: 1-based numbers.
            every_band: a pixel is data if it is in every band; False: in any of them, since a dark pixel of an image
                may hold the nodata number in one band. NaN and infinity are never data.
            window: whole pixels inside the raster; None = all of it.

        Returns:
            (H, W, B) as stored, possibly a view with bands first in memory, and (H, W) bool.

        Raises:
            UserError: a band is not there, or the pixels cannot be read.
        """
        self.check_bands(bands)
        try:
            values = self.source.read(list(bands), window=window)
            valid = np.ones(values.shape, dtype=bool)
            if self.may_have_gaps:
                valid = self.source.read_masks(list(bands), window=window) > 0
        except RasterioError as error:
            raise UserError(
                f"{self.role} raster '{self.path}' is damaged or cut off: its pixels cannot be read"
            ) from error
        mask = np.asarray(valid.all(axis=0) if every_band else valid.any(axis=0))
        if np.issubdtype(values.dtype, np.inexact):
            mask = mask & np.isfinite(values).all(axis=0)
        return values.transpose(1, 2, 0), mask


def _is_bigtiff_without_directory(path: str) -> bool:
    """Whether a BigTIFF says that its directory lies beyond its end: libtiff then writes to the terminal by itself."""
    with open(path, "rb") as file:
        head = file.read(16)
    order = {b"II+\0": "<", b"MM\0+": ">"}.get(head[:4])
    return order is not None and len(head) == 16 and struct.unpack(f"{order}Q", head[8:])[0] >= os.path.getsize(path)


def png_is_whole(path: str) -> bool:
    """Look for the closing chunk: GDAL reads a PNG that is cut off as zeros, without complaint."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        return _PNG_END in file.read()


def _has_code(path: str) -> bool:
    """Look for a pixel function in Python. GDAL does not run it here, but it may return zeros instead of an error."""
    with open(path, "rb") as file:
        return b"<PixelFunctionLanguage" in file.read()
