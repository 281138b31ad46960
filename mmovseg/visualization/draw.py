"""Rasters to display colours: SAR by fixed dB limits, labels by their palette, heat maps over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.sar import SarUnit, convert_sar

# Fixed, so that a grey value means the same backscatter in every picture; never stretched per image.
CO_POL_LIMITS_DB = (-25.0, 0.0)
CROSS_POL_LIMITS_DB = (-32.0, -7.0)
RATIO_LIMITS_DB = (0.0, 15.0)
IGNORE_COLOR = (255, 255, 255)


def sar_to_rgb(
    sar_db: np.ndarray,
    valid: np.ndarray | None = None,
    *,
    unit: SarUnit = "db",
    limits_db: tuple[float, float] | None = None,
) -> np.ndarray:
    """Turn backscatter into display colours.

    8-bit amplitude is an image already and shown as it is. dB with one polarisation: grey. Two or more: false colour
    with red = co-pol (VV), green = cross-pol (VH), blue = VV - VH, so that water is dark, vegetation green and
    buildings bright.

    Args:
        sar_db: (H, W, P) or (H, W) in dB; first co-pol, then cross-pol. NaN is drawn black.
        valid: (H, W) bool, False is drawn black.
        unit: of the values; power is turned into dB.
        limits_db: drawn black and white; the first channel is then shown alone, in grey. For SAR without calibration.

    Returns:
        (H, W, 3) uint8.
    """
    if sar_db.ndim == 2:
        sar_db = sar_db[..., None]
    if unit == "amplitude8":
        return optical_to_rgb(sar_db, valid)
    sar_db = convert_sar(sar_db, unit_in=unit, unit_out="db")
    co_pol = sar_db[..., 0]
    if sar_db.shape[-1] == 1 or limits_db is not None:
        channels = [_stretch(co_pol, limits_db or CO_POL_LIMITS_DB)] * 3
    else:
        cross_pol = sar_db[..., 1]
        channels = [
            _stretch(co_pol, CO_POL_LIMITS_DB),
            _stretch(cross_pol, CROSS_POL_LIMITS_DB),
            _stretch(co_pol - cross_pol, RATIO_LIMITS_DB),
        ]
    shown = np.stack(channels, axis=-1)
    bad = ~np.isfinite(sar_db).all(axis=-1)
    if valid is not None:
        bad |= ~valid
    shown[bad] = 0
    return shown


def optical_to_rgb(optical: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Return (H, W, 3) uint8 of an (H, W, B) image on the 0..255 scale: its first three bands, one band as grey."""
    bands = optical[..., :3] if optical.shape[-1] >= 3 else np.repeat(optical[..., :1], 3, axis=-1)
    shown = np.clip(np.nan_to_num(np.asarray(bands, dtype=np.float32)), 0, 255).round().astype(np.uint8)
    if valid is not None:
        shown[~valid] = 0
    return shown


def color_labels(labels: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Return (H, W, 3) uint8 for (H, W) labels; 255 is white. Raises `ValueError` for a label without colour."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = np.asarray(colors, dtype=np.uint8)
    table[IGNORE_LABEL] = IGNORE_COLOR
    unknown = set(np.unique(labels).tolist()) - set(range(len(colors))) - {IGNORE_LABEL}
    if unknown:
        raise ValueError(f"label {min(unknown)} has no colour; there are {len(colors)}")
    return table[labels]


def overlay(image: np.ndarray, colors: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blend (H, W, 3) uint8 `colors` over `image`; `opacity` 0 shows the image alone, 1 the colours alone."""
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in 0..1, got {opacity}")
    return (image * (1 - opacity) + colors * opacity).round().astype(np.uint8)


def normalize_map(values: np.ndarray) -> np.ndarray:
    """Stretch a map linearly to 0..1 between its 1st and 99th percentile; a constant map becomes 0."""
    low, high = np.percentile(values, (1, 99))
    if not high > low:
        return np.zeros_like(values, dtype=np.float32)
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


def _stretch(values_db: np.ndarray, limits_db: tuple[float, float]) -> np.ndarray:
    low, high = limits_db
    scaled = (np.nan_to_num(values_db, nan=low, posinf=high, neginf=low) - low) / (high - low)
    return (255 * np.clip(scaled, 0, 1)).round().astype(np.uint8)
