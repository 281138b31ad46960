"""Photometric augmentations, one per modality; pixels never move. Every draw comes from the generator passed in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmovseg.data.sar import db_to_linear, linear_to_db
from mmovseg.errors import UserError

_MID_GREY = np.float32(127.5)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=np.float32)
_YIQ_INVERSE = np.linalg.inv(_YIQ).astype(np.float32)


class OpticalJitter:
    """Change brightness, contrast, saturation, hue and season of an RGB image, as SSD training does.

    Each of the five is applied with probability `prob`, with strength drawn uniformly within plus or minus its range.

    Args:
        brightness: shift on the 0..255 scale.
        contrast: relative change of the distance to mid-grey (127.5), below 1. Not to the image mean, so that a
            clouded and a clear view of one place change alike.
        saturation: relative change of the distance to grey, below 1.
        hue_deg: rotation of the colour circle in degrees.
        season: relative, opposite gain of green against red and blue (lush against dry vegetation), below 1.
        prob: 0..1.
    """

    def __init__(
        self,
        *,
        brightness: float = 32.0,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue_deg: float = 10.0,
        season: float = 0.0,
        prob: float = 0.5,
    ) -> None:
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.hue_deg, self.season, self.prob = hue_deg, season, prob

    def __call__(self, optical: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change one image.

        Args:
            optical: (H, W, 3) uint8 or float32, RGB on the 0..255 scale.
            rng: source of every draw; always advanced by the same amount.

        Returns:
            Same shape and dtype, clipped to 0..255.
        """
        strength = rng.uniform(-1.0, 1.0, 5) * (rng.random(5) < self.prob)
        if not strength.any():
            return optical
        image = optical.astype(np.float32)
        image += np.float32(strength[0] * self.brightness)
        image = (image - _MID_GREY) * np.float32(1.0 + strength[1] * self.contrast) + _MID_GREY
        grey = (image @ _LUMA)[:, :, None]
        image = (image - grey) * np.float32(1.0 + strength[2] * self.saturation) + grey
        image = image @ _hue_matrix(strength[3] * self.hue_deg).T
        shift = strength[4] * self.season
        image *= np.array([1.0 - shift / 2, 1.0 + shift, 1.0 - shift / 2], dtype=np.float32)
        np.clip(image, 0.0, 255.0, out=image)
        return np.rint(image).astype(np.uint8) if optical.dtype == np.uint8 else image.astype(optical.dtype)


class SarJitter:
    """Add multiplicative speckle and a gain error to SAR in dB.

    Args:
        looks: equivalent number of looks of the added speckle: one number, or (low, high) to draw from log-uniformly.
            The multiplier is gamma distributed with mean 1 and variance 1/looks, in linear power. None adds none.
        gain_db: a constant offset, uniform within plus or minus this many dB, one draw for all polarisations.
        prob: probability of each of the two, 0..1.

    Raises:
        UserError: looks not positive.
    """

    def __init__(
        self, *, looks: float | Sequence[float] | None = (4.0, 16.0), gain_db: float = 1.0, prob: float = 0.5
    ) -> None:
        span = None if looks is None else (looks, looks) if isinstance(looks, (int, float)) else tuple(looks)
        if span is not None and not 0 < span[0] <= span[1]:
            raise UserError(f"speckle needs a positive number of looks, got {looks}")
        self.looks, self.gain_db, self.prob = span, gain_db, prob

    def __call__(self, sar_db: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change one image.

        Args:
            sar_db: (H, W, P) float32 in dB; NaN stays NaN.
            rng: source of every draw.

        Returns:
            (H, W, P) float32 in dB.
        """
        with_speckle, with_gain = rng.random(2) < self.prob
        gain_db = rng.uniform(-self.gain_db, self.gain_db)
        sar_db = sar_db.astype(np.float32)
        if with_gain:
            sar_db = sar_db + np.float32(gain_db)
        if with_speckle and self.looks is not None:
            looks = float(np.exp(rng.uniform(*np.log(self.looks))))
            multiplier = rng.standard_gamma(looks, sar_db.shape) / looks
            sar_db = linear_to_db(db_to_linear(sar_db) * multiplier)
        return sar_db


def _hue_matrix(angle_deg: float) -> np.ndarray:
    """RGB matrix (3, 3) that turns the chroma plane of YIQ and keeps luma."""
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=np.float32)
    return _YIQ_INVERSE @ turn @ _YIQ
