"""Read optical, SAR and label rasters (GeoTIFF, PNG, JPEG, anything GDAL knows) into arrays and masks.

One rule for every reader: values that are not data come back in a mask, and a file that cannot be used raises a
`UserError` that names it. Nothing is scaled by the statistics of a scene, because two views of one place must not get
different values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmovseg.data.raster import Raster, Scaling
from mmovseg.data.sample import IGNORE_LABEL, DatasetDict, RawSample
from mmovseg.data.sar import (
    AMPLITUDE8_TOP_DB,
    SarUnit,
    check_sar_units,
    complex_to_linear,
    convert_sar,
    select_polarisations,
)
from mmovseg.errors import UserError

OPTICAL_RANGE_INTEGER = (0.0, 3000.0)
"""Default range of integers wider than 8 bit that becomes 0..255: reflectance 0 to 0.3, stored times 10,000 as
Sentinel-2 products do. Land rarely exceeds it; cloud and snow saturate, as they do in the true-colour product."""

OPTICAL_RANGE_SCALED = (0.0, 0.3)
"""Default range of values that a file declares a fine scale for, as products of reflectance do: that of
`OPTICAL_RANGE_INTEGER`, in reflectance."""
_REFLECTANCE_STEP = 0.001

Decoder = Literal["gdal", "pil"]
DECODERS: tuple[Decoder, ...] = get_args(Decoder)

_PIL_8_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def read_optical(
    path: str | Path, *, bands: Sequence[int] | None = None, optical_range: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image as RGB on the 0..255 scale.

    Args:
        path: the raster.
        bands: the 1-based numbers of the red, green and blue band (one number for a grey image). None takes one band
            as grey, three in their order, and from more those that the file tags red, green and blue; palettes are
            expanded, and an alpha band only says where data is.
        optical_range: stored values that become 0 and 255, values beyond saturate. None keeps 8-bit values as they
            are and takes `OPTICAL_RANGE_INTEGER` for wider integers; floats have no usual scale and need it. Where the
            file declares scale and offset, see `optical_scaling`.

    Returns:
        The image (H, W, 3), uint8 if stored so and not scaled, else float32 in 0..255, and its mask (H, W) bool, True
        where the pixel is data. Pixels that are not hold 0.

    Raises:
        UserError: the file is missing or damaged, the bands are not there or ambiguous, floats or values of a coarse
            scale without a range, or complex samples.
    """
    with Raster(path, "optical") as raster:
        chosen = raster.rgb_bands(bands)
        stored, valid = raster.read(chosen, every_band=False)
        palette = raster.palette()
        scaling, optical_range = optical_scaling(raster, chosen, optical_range)
    stored = stored if scaling is None else scaling.apply(stored)
    image = stored_to_optical(stored, valid, palette=palette, optical_range=optical_range, source=str(path))
    return np.ascontiguousarray(image), valid


def optical_scaling(
    raster: Raster, bands: Sequence[int], optical_range: Sequence[float] | None
) -> tuple[Scaling | None, Sequence[float] | None]:
    """Return what a declared scale and offset do to an optical raster.

    Values become scale * number + offset, and that is what a range is given in. Without one, steps of at most 0.001
    are taken for reflectance (`OPTICAL_RANGE_SCALED`); other scales have no usual range. 8-bit values without a range
    and palettes stay as they are stored: the whole of 0..255 is black to white, whatever the file says it stands for.

    Args:
        raster: open.
        bands: 1-based, those that are read.
        optical_range: given by the user, or None.

    Returns:
        The scaling to apply, None for none, and the range of black and white, None for the default of stored values.

    Raises:
        UserError: a coarse scale and no range, or a scale that is no number or 0.
    """
    scaling = None if raster.palette() is not None else raster.scaling(bands)
    if scaling is None or optical_range is not None:
        return scaling, optical_range
    if raster.source.dtypes[bands[0] - 1] == "uint8":
        return None, None
    if max(abs(scale) for scale in scaling.scales) > _REFLECTANCE_STEP:
        raise UserError(
            f"optical raster '{raster.path}' declares {scaling}, too coarse for reflectance; say which range of the "
            "scaled values is black to white, for example optical_range=(0, 100) (on a command line "
            "--optical-range 0 100)"
        )
    return scaling, OPTICAL_RANGE_SCALED


def stored_to_optical(
    stored: np.ndarray,
    valid: np.ndarray,
    *,
    palette: np.ndarray | None = None,
    optical_range: Sequence[float] | None = None,
    source: str = "raster",
) -> np.ndarray:
    """Turn stored values into an image on the 0..255 scale by the rules of `read_optical`.

    Args:
        stored: (H, W, B), one band or the wanted ones.
        valid: (H, W) bool.
        palette: (256, 3) uint8 colours that one band of indices stands for, or None.
        optical_range: see `read_optical`.
        source: file named in errors.

    Returns:
        (H, W, B), 3 bands where there was one; uint8 if stored so and not scaled, else float32 in 0..255; 0 where not
        valid.

    Raises:
        UserError: complex samples, floats without a range, or a range whose ends do not ascend.
    """
    image = stored if palette is None else palette[stored[:, :, 0].astype(np.int64)]
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    image = _scale_optical(image, valid, optical_range, source)
    image[~valid] = 0
    return image


def read_sar(
    path: str | Path, *, bands: Sequence[int] | None = None, nodata: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read SAR bands in the unit of the file; complex samples become power.

    Where the file declares scale and offset, values are scale * number + offset.

    Args:
        path: the raster.
        bands: 1-based band numbers to read, in order; None reads all but an alpha band.
        nodata: a value that means "no data" besides the one the file declares, for files that declare none.

    Returns:
        (H, W, P) float32, and (H, W) bool, True where every band is data: not nodata, not NaN, not infinite. Values
        where it is False are NaN.

    Raises:
        UserError: the file is missing or damaged, or lacks a band.
    """
    with Raster(path, "SAR") as raster:
        chosen = bands or raster.data_bands()
        stored, valid = raster.read(chosen, every_band=True)
        scaling = raster.scaling(chosen)
    sar, valid = stored_to_sar(stored, valid, nodata=nodata, scaling=scaling)
    return np.ascontiguousarray(sar), valid


def stored_to_sar(
    stored: np.ndarray, valid: np.ndarray, *, nodata: float | None = None, scaling: Scaling | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Turn stored values into SAR by the rules of `read_sar`.

    Args:
        stored: (H, W, P).
        valid: (H, W) bool.
        nodata: see `read_sar`; a number as stored.
        scaling: what the numbers stand for, None for themselves.

    Returns:
        (H, W, P) float32, NaN where not valid, and (H, W) bool.
    """
    if nodata is not None:
        valid = valid & ~np.any(stored == nodata, axis=2)
    stored = stored if scaling is None else scaling.apply(stored)
    sar = complex_to_linear(stored) if np.iscomplexobj(stored) else stored.astype(np.float32)
    sar[~valid] = np.nan
    return sar, valid


def read_rgb8(path: str | Path, *, role: str = "optical") -> np.ndarray:
    """Read an 8-bit image as detectron2 does, through PIL: grey is repeated, palettes are expanded, alpha is dropped.

    The released checkpoints were trained on images read so. GDAL gives other values for a JPEG with reduced colour
    planes, and it knows "no data", which PIL does not.

    Args:
        path: PNG, JPEG, GeoTIFF or what else PIL opens.
        role: named in error messages.

    Returns:
        (H, W, 3) uint8; every pixel is data.

    Raises:
        UserError: the file is missing or damaged, or has more than 8 bits a value.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _PIL_8_BIT:
                raise UserError(
                    f"{role} raster '{path}' holds values of more than 8 bits (PIL mode '{image.mode}'), but the "
                    "released models read 8-bit files only; convert it, or use a config with sar_geometry='paired'"
                )
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{role} raster '{path}' does not exist") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{role} raster '{path}' is not an 8-bit image that PIL can read") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{role} raster '{path}' is damaged or cut off: its pixels cannot be read") from error


def read_label(path: str | Path, *, label_map: Mapping[int, int] | None = None) -> np.ndarray:
    """Read class ids.

    Args:
        path: a raster of one band; the indices of a palette image are the ids.
        label_map: stored value -> class id (or 255), for files with other numbers. A stored value that it does not
            list is an error, except 255.

    Returns:
        (H, W) int64; nodata, NaN and masked pixels are 255.

    Raises:
        UserError: the file is missing or damaged, has several bands, holds fractions, or a value is not in `label_map`.
    """
    with Raster(path, "label") as raster:
        bands = raster.data_bands()
        if len(bands) != 1:
            raise UserError(f"label '{path}' has {len(bands)} bands; it must have one band that holds class ids")
        stored, valid = raster.read(bands, every_band=True)
    stored = stored[:, :, 0]
    label = np.full(stored.shape, IGNORE_LABEL, dtype=np.int64)
    label[valid] = stored[valid]
    fractions = valid & (label != stored)
    if fractions.any():
        raise UserError(f"label '{path}' has the value {stored[fractions][0]}, which is not a whole number")
    return label if label_map is None else _map_label(label, valid, label_map, str(path))


class FileReader:
    """Read the rasters that a dataset dict names; an absent key is an absent modality.

    Args:
        bands: red, green and blue band of the optical files, see `read_optical`.
        optical_range: see `read_optical`.
        sar_unit_in: unit of the SAR files.
        sar_unit: unit of the samples; models and augmentations of this package expect dB.
        sar_bands: 1-based bands to read from the SAR files, None for all.
        sar_polarisations_in: names of the bands read, for example ``("VV", "VH")``; needed to pick by name.
        sar_polarisations: names to return, in order. None returns the bands as read.
        sar_channels: bands that samples shall have: a file of one band is repeated, one of so many is kept.
        sar_nodata: see `read_sar`.
        amplitude8_top_db: calibration of the unit `amplitude8`, dB of the digital number 255.
        label_map: see `read_label`; that of a dataset dict goes before it.
        decoder: "gdal" reads anything and tells what is no data. "pil" reads optical and SAR like the release, see
            `read_rgb8`: 8 bits, three channels, unit `amplitude8`, no masks; the options of bands are not for it.

    Raises:
        UserError: unknown unit or decoder, `sar_polarisations` without `sar_polarisations_in`, or an option that the
            decoder does not know.
    """

    def __init__(
        self,
        *,
        bands: Sequence[int] | None = None,
        optical_range: Sequence[float] | None = None,
        sar_unit_in: SarUnit = "db",
        sar_unit: SarUnit = "db",
        sar_bands: Sequence[int] | None = None,
        sar_polarisations_in: Sequence[str] | None = None,
        sar_polarisations: Sequence[str] | None = None,
        sar_channels: int | None = None,
        sar_nodata: float | None = None,
        amplitude8_top_db: float = AMPLITUDE8_TOP_DB,
        label_map: Mapping[int, int] | None = None,
        decoder: Decoder = "gdal",
    ) -> None:
        check_sar_units(sar_unit_in, sar_unit)
        if sar_polarisations is not None and sar_polarisations_in is None:
            raise UserError(
                f"to pick the polarisations {', '.join(sar_polarisations)}, name those of the files as well"
            )
        if decoder not in DECODERS:
            raise UserError(f"unknown decoder '{decoder}'; known: {', '.join(DECODERS)}")
        if decoder == "pil" and sar_unit_in != "amplitude8":
            raise UserError(f"decoder 'pil' reads 8-bit SAR, so sar_unit_in must be 'amplitude8', not '{sar_unit_in}'")
        options = (bands, optical_range, sar_bands, sar_polarisations_in, sar_nodata, sar_channels)
        if decoder == "pil" and any(option is not None for option in options):
            raise UserError("decoder 'pil' reads whole 8-bit images: leave out bands, ranges, channels and nodata")
        self.decoder = decoder
        self.bands, self.optical_range = bands, optical_range
        self.sar_unit_in, self.sar_unit = sar_unit_in, sar_unit
        self.sar_bands, self.sar_nodata, self.amplitude8_top_db = sar_bands, sar_nodata, amplitude8_top_db
        self.sar_polarisations_in, self.sar_polarisations = sar_polarisations_in, sar_polarisations
        self.sar_channels = sar_channels
        self.label_map = label_map

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read one sample: optical on the 0..255 scale, SAR in `sar_unit`, label ids.

        Raises:
            UserError: a named file is unusable (see the functions above), or two rasters differ in size.
        """
        sample = RawSample(captions=_captions(dataset_dict))
        sizes: dict[str, tuple[int, int]] = {}
        if "file_name" in dataset_dict:
            path = dataset_dict["file_name"]
            sample.optical, sample.optical_valid = self._read_optical(path)
            sizes[path] = sample.optical.shape[:2]
        if "sar_file_name" in dataset_dict:
            path = dataset_dict["sar_file_name"]
            sample.sar, sample.sar_valid = self._read_sar(path)
            sizes[path] = sample.sar.shape[:2]
        if "sem_seg_file_name" in dataset_dict:
            path = dataset_dict["sem_seg_file_name"]
            sample.sem_seg = read_label(path, label_map=_whole_numbers(dataset_dict.get("label_map", self.label_map)))
            sizes[path] = sample.sem_seg.shape[:2]
        _check_same_size(sizes)
        return sample

    def _read_optical(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        if self.decoder == "pil":
            image = read_rgb8(path)
            return image, np.ones(image.shape[:2], dtype=bool)
        return read_optical(path, bands=self.bands, optical_range=self.optical_range)

    def _read_sar(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        if self.decoder == "pil":
            sar = read_rgb8(path, role="SAR").astype(np.float32)
            valid = np.ones(sar.shape[:2], dtype=bool)
        else:
            sar, valid = read_sar(path, bands=self.sar_bands, nodata=self.sar_nodata)
        if self.sar_polarisations_in is not None:
            wanted = self.sar_polarisations or self.sar_polarisations_in
            sar = select_polarisations(sar, self.sar_polarisations_in, wanted, source=str(path))
        if self.sar_channels is not None:
            sar = _repeat_bands(sar, self.sar_channels, str(path))
        sar = convert_sar(
            sar, unit_in=self.sar_unit_in, unit_out=self.sar_unit, amplitude8_top_db=self.amplitude8_top_db
        )
        return sar, valid


def _scale_optical(
    image: np.ndarray, valid: np.ndarray, optical_range: Sequence[float] | None, path: str
) -> np.ndarray:
    if np.iscomplexobj(image):
        raise UserError(f"optical raster '{path}' holds complex samples; is it the SAR file?")
    if optical_range is None:
        if image.dtype == np.uint8:
            return image.copy(order="K")
        if np.issubdtype(image.dtype, np.floating):
            raise UserError(
                f"optical raster '{path}' holds {image.dtype} values; say which range is black to white, for example "
                "optical_range=(0, 0.3) for reflectance (on a command line --optical-range 0 0.3)"
            )
        optical_range = OPTICAL_RANGE_INTEGER
    low, high = (float(value) for value in optical_range)
    if not low < high:
        raise UserError(f"optical_range must be (low, high) with low < high, got ({low}, {high})")
    filled = np.where(valid[:, :, None], image, low).astype(np.float32)
    return np.clip((filled - low) * np.float32(255.0 / (high - low)), 0.0, 255.0)


def _map_label(label: np.ndarray, valid: np.ndarray, label_map: Mapping[int, int], path: str) -> np.ndarray:
    mapped = np.full(label.shape, IGNORE_LABEL, dtype=np.int64)
    for value in np.unique(label[valid]):
        if int(value) not in label_map and value != IGNORE_LABEL:
            raise UserError(f"label '{path}' has the value {value}, which the label map does not list")
        mapped[valid & (label == value)] = label_map.get(int(value), IGNORE_LABEL)
    return mapped


def _whole_numbers(label_map: Mapping[int, int] | None) -> dict[int, int] | None:
    """Undo what JSON does to the keys of a label map."""
    return None if label_map is None else {int(stored): int(value) for stored, value in label_map.items()}


def _repeat_bands(sar: np.ndarray, channels: int, path: str) -> np.ndarray:
    if sar.shape[2] not in (1, channels):
        raise UserError(f"SAR raster '{path}' has {sar.shape[2]} bands; one, or {channels}, can be read as {channels}")
    return np.repeat(sar, channels, axis=2) if sar.shape[2] == 1 else sar


def _check_same_size(sizes: dict[str, tuple[int, int]]) -> None:
    (first, size), *others = sizes.items() or [("", (0, 0))]
    for path, other in others:
        if other != size:
            raise UserError(
                f"'{first}' is {size[0]}x{size[1]} pixels but '{path}' is {other[0]}x{other[1]} (height x width); "
                "the rasters of a pair must have one size"
            )


def _captions(dataset_dict: Mapping[str, Any]) -> list[str]:
    captions = list(dataset_dict.get("captions", ()))
    if "caption" in dataset_dict:
        captions.insert(0, dataset_dict["caption"])
    return captions
