"""Synthetic clouds over optical rasters, with the opacity mask that made them.

A cloud is seeded noise, cut at the quantile that gives the wanted coverage. The same `CloudField` can be laid over many
images, and a seed gives the same field for the same image size. Not a radiative transfer model: what matters is
that opacity runs from haze to opaque cores, that edges are soft, and that shadows lie beside their cloud.
Masks from a file: `mmovseg.data.clouds_fixed`. An independent generator: `mmovseg.data.clouds_package`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, get_args
from zipfile import BadZipFile

import numpy as np

from mmovseg.checkpoint.save import atomic_write
from mmovseg.data.miniearth.noise import Double, Float, fractal_normal, pixel_axis
from mmovseg.errors import UserError

CloudKindName = Literal["clear", "thin", "thick", "varied"]
COVERED_ALPHA = 0.5
"""A pixel counts as covered when its opacity exceeds this."""

_CLOUD_WHITE = 255.0
_BLUISH = np.array([0.10, 0.05, 0.0], dtype=np.float32)
_SELF_SHADING = 0.03
_BRIGHTNESS_SPREAD = 0.03
# Rows and columns of a large scene on which the threshold of its clouds is set.
_THRESHOLD_GRID = 1024


@dataclass(frozen=True)
class CloudKind:
    """Ranges from which one cloud is drawn, each (low, high) and uniform.

    coverage: fraction of pixels with opacity above `COVERED_ALPHA`.
    peak: opacity of the cores, above `COVERED_ALPHA`.
    softness: half the width of the edge, in standard deviations of the noise; small is sharp.
    haze: opacity of a thin veil beside the cloud, below `COVERED_ALPHA`.
    """

    coverage: tuple[float, float]
    peak: tuple[float, float]
    softness: tuple[float, float]
    haze: tuple[float, float]


CLOUD_KINDS: dict[CloudKindName, CloudKind] = {
    "clear": CloudKind(coverage=(0.0, 0.0), peak=(1.0, 1.0), softness=(0.5, 0.5), haze=(0.0, 0.0)),
    "thin": CloudKind(coverage=(0.3, 1.0), peak=(0.55, 0.8), softness=(1.0, 2.0), haze=(0.1, 0.45)),
    "thick": CloudKind(coverage=(0.2, 0.9), peak=(0.97, 1.0), softness=(0.1, 0.5), haze=(0.0, 0.0)),
    "varied": CloudKind(coverage=(0.1, 1.0), peak=(0.9, 1.0), softness=(0.2, 1.2), haze=(0.0, 0.45)),
}


@dataclass(frozen=True)
class CloudField:
    """One cloud on one grid, to be laid over any image of that size.

    alpha: (H, W) float32 opacity in [0, 1], exactly 0 where the sky is clear.
    color: (H, W, 3) float32 RGB of the cloud on the 0..255 scale.
    shadow: (H, W) float32 in [0, 1), the fraction of light that the shadow takes away.
    """

    alpha: np.ndarray
    color: np.ndarray
    shadow: np.ndarray

    @property
    def coverage(self) -> float:
        """Fraction of pixels with opacity above `COVERED_ALPHA`."""
        return float((self.alpha > COVERED_ALPHA).mean())

    def apply(self, optical: np.ndarray) -> np.ndarray:
        """Lay the cloud over an image.

        Args:
            optical: (H, W, 3) uint8 or float32, RGB on the 0..255 scale, of the size of the field.

        Returns:
            The clouded image in the dtype of `optical` (uint8 is rounded); unchanged where alpha and shadow are 0.

        Raises:
            ValueError: the image has another size than the field.
        """
        if optical.shape != self.color.shape:
            raise ValueError(f"the cloud is {self.color.shape}, the image {optical.shape}")
        alpha = self.alpha[:, :, None]
        clouded = optical * ((1.0 - alpha) * (1.0 - self.shadow[:, :, None])) + alpha * self.color
        if optical.dtype == np.uint8:
            return np.rint(clouded, out=clouded).astype(np.uint8)
        return clouded.astype(optical.dtype)

    def save(self, path: str | Path) -> None:
        """Write all three arrays without loss to a ``.npz`` file, so that the same cloud can be laid again.

        Raises:
            UserError: the path does not end in ``.npz``, or its folder cannot be written to.
        """
        if Path(path).suffix != ".npz":
            raise UserError(f"a cloud is saved as .npz, but the path is '{path}'")
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, alpha=self.alpha, color=self.color, shadow=self.shadow)

    @classmethod
    def load(cls, path: str | Path) -> CloudField:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            UserError: the file is missing, damaged, or holds no cloud.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                field = cls(*(stored[name].astype(np.float32, copy=False) for name in ("alpha", "color", "shadow")))
        except FileNotFoundError as error:
            raise UserError(f"cloud '{path}' does not exist") from error
        except (OSError, ValueError, KeyError, AttributeError, TypeError, EOFError, zlib.error, BadZipFile) as error:
            raise UserError(f"cloud '{path}' is no .npz with alpha, color and shadow, or it is damaged") from error
        shape = field.alpha.shape
        if len(shape) != 2 or field.shadow.shape != shape or field.color.shape != (*shape, 3):
            raise UserError(
                f"cloud '{path}' has alpha {shape}, color {field.color.shape} and shadow {field.shadow.shape}; "
                "they must be (H, W), (H, W, 3) and (H, W)"
            )
        return field


class Clouds(Protocol):
    """What lays clouds over images: every synthesizer of this package, and any callable of this form.

    It takes an image (H, W, 3) uint8 or float32 on the 0..255 scale and a generator, or the number of the cloud, and
    returns the clouded image in the image's dtype, the opacity (H, W) float32 in [0, 1], and the fraction of light
    taken by shadow (H, W) float32 in [0, 1).
    """

    def __call__(
        self, optical: np.ndarray, rng: int | np.random.Generator | None = None, /
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...


class CloudSynthesizer:
    """Draw clouds of a kind.

    Args:
        kind: ``clear`` (none), ``thin`` (veils), ``thick`` (opaque, sharp edges), or ``varied`` (everything between
            nearly clear and overcast, haze and opaque cores; covers 55 % in the mean).
        coverage: fraction of pixels with opacity above 0.5: one number, or (low, high) to draw from uniformly. None
            takes the range of the kind.
        shadow: cast shadows, displaced along the sun's direction.
        shadow_strength: (low, high) of the light taken away under an opaque cloud, 0..1.
        size_fraction: (low, high) of the size of the largest features, as a fraction of the shorter image side.
        prob: probability that there is a cloud at all; otherwise the sky is clear.
        seed: added to the seed of every call, so that two synthesizers differ.

    Raises:
        UserError: unknown kind, or a range or probability outside 0..1.
    """

    def __init__(
        self,
        *,
        kind: CloudKindName = "varied",
        coverage: float | Sequence[float] | None = None,
        shadow: bool = True,
        shadow_strength: Sequence[float] = (0.3, 0.6),
        size_fraction: Sequence[float] = (0.3, 0.9),
        prob: float = 1.0,
        seed: int = 0,
    ) -> None:
        if kind not in CLOUD_KINDS:
            raise UserError(f"unknown cloud kind '{kind}'; known: {', '.join(get_args(CloudKindName))}")
        self.kind = kind
        self.coverage = CLOUD_KINDS[kind].coverage if coverage is None else _span(coverage, "coverage")
        if kind == "clear" and self.coverage != (0.0, 0.0):
            raise UserError(f"clouds of kind 'clear' cover nothing, got coverage={coverage}")
        self.shadow = shadow
        self.shadow_strength = _span(shadow_strength, "shadow_strength")
        self.size_fraction = _span(size_fraction, "size_fraction")
        self.prob = _span(prob, "prob")[0]
        self.seed = seed

    def __call__(
        self, optical: np.ndarray, rng: int | np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Put a new cloud over an image.

        Args:
            optical: (H, W, 3) uint8 or float32, RGB on the 0..255 scale.
            rng: a generator to draw from, or the number of the cloud; None is cloud 0.

        Returns:
            The clouded image in the dtype of `optical`, its opacity (H, W) float32 in [0, 1], and the fraction of light
            taken by shadow (H, W) float32 in [0, 1).
        """
        field = self.field(optical.shape[0], optical.shape[1], rng)
        return field.apply(optical), field.alpha, field.shadow

    def field(self, height: int, width: int, rng: int | np.random.Generator | None = None) -> CloudField:
        """Draw one cloud for images of (height, width) pixels; `rng` as in `__call__`."""
        cloud = self._draw(min(height, width), rng)
        return _clear_sky(height, width) if cloud is None else cloud.field(0, 0, height, width)

    def cover(
        self, height: int, width: int, rng: int | np.random.Generator | None = None, *, extent_px: int = 1024
    ) -> CloudCover:
        """Draw the clouds of a scene that is too large to hold at once; `rng` as in `__call__`.

        Args:
            height: rows of the scene.
            width: columns of the scene.
            rng: as in `__call__`.
            extent_px: clouds are as large as those of an image of this size, so that a large scene holds many.

        Returns:
            Any window of the clouds. For a scene of at most `extent_px` pixels a side the whole is what `field` draws.
        """
        cloud = self._draw(min(height, width, extent_px), rng)
        if cloud is not None:
            # the share of covered pixels is set on every n-th row and column of the scene
            ys, xs = (pixel_axis(0, size)[:: -(-size // _THRESHOLD_GRID)] for size in (height, width))
            cloud = replace(cloud, threshold=_quantile(cloud.noise(ys, xs), 1.0 - cloud.coverage))
        return CloudCover(cloud)

    def _draw(self, short_px: int, rng: int | np.random.Generator | None) -> _Cloud | None:
        """Draw a cloud whose sizes are fractions of `short_px`, or None for a clear sky."""
        draw = rng if isinstance(rng, np.random.Generator) else np.random.default_rng([self.seed, rng or 0])
        kind = CLOUD_KINDS[self.kind]
        # Everything is drawn in a fixed order and always, so that one option does not change what the others draw.
        coverage, peak, softness, haze_peak, strength, fraction = (
            float(draw.uniform(low, high))
            for low, high in (
                self.coverage, kind.peak, kind.softness, kind.haze, self.shadow_strength, self.size_fraction
            )
        )  # fmt: skip
        sun_rad, distance, level = draw.uniform(0, 2 * np.pi), draw.uniform(0.08, 0.2), draw.uniform(0.85, 0.97)
        seeds = draw.integers(2**31, size=3)
        if coverage <= 0.0 or (self.prob < 1.0 and draw.random() >= self.prob):
            return None
        down, right = (round(distance * short_px * part) for part in (np.sin(sun_rad), np.cos(sun_rad)))
        return _Cloud(
            coverage=coverage,
            peak=peak,
            softness=softness,
            haze_peak=haze_peak,
            strength=strength if self.shadow else 0.0,
            level=level,
            cell=max(2.0, fraction * short_px),
            down=down,
            right=right,
            seeds=(int(seeds[0]), int(seeds[1]), int(seeds[2])),
        )


@dataclass(frozen=True)
class _Cloud:
    """What is drawn of a cloud: it can be laid on any window of an endless plane of pixels.

    `down`, `right`: displacement of the shadow in pixels. `cell`: size of the largest features in pixels. `threshold`:
    the value of the noise at the edge of the cloud; None takes the one that covers the wanted share of the window.
    """

    coverage: float
    peak: float
    softness: float
    haze_peak: float
    strength: float
    level: float
    cell: float
    down: int
    right: int
    seeds: tuple[int, int, int]
    threshold: float | None = None

    def noise(self, ys: Double, xs: Double) -> Float:
        return fractal_normal(ys, xs, cell=self.cell, octaves=4, seed=self.seeds[0], persistence=0.55)

    def field(self, row: int, col: int, height: int, width: int) -> CloudField:
        """Return the window whose first pixel is (row, col)."""
        top, left = max(0, self.down), max(0, self.right)
        noise = self.noise(
            pixel_axis(row - top, height + abs(self.down)), pixel_axis(col - left, width + abs(self.right))
        )
        here = (slice(top, top + height), slice(left, left + width))
        # The cloud that shades (y, x) stands at (y - down, x - right), towards the sun.
        first_y, first_x = top - self.down, left - self.right
        sunward = (slice(first_y, first_y + height), slice(first_x, first_x + width))
        threshold = _quantile(noise[here], 1.0 - self.coverage) if self.threshold is None else self.threshold
        cloud = _opacity(noise, threshold, self.peak, self.softness)
        ys, xs = pixel_axis(row, height), pixel_axis(col, width)
        alpha = np.maximum(cloud[here], _veil(ys, xs, self.haze_peak, self.cell, self.seeds[1]))
        shadow = np.float32(self.strength) * cloud[sunward]
        shading = np.clip(noise[here] - noise[sunward], -2.0, 2.0) * np.float32(_SELF_SHADING)
        return CloudField(alpha, _color(ys, xs, alpha, self.level, shading, self.cell, self.seeds[2]), shadow)


@dataclass(frozen=True)
class CloudCover:
    """The clouds of a large scene, window by window and without a seam; made by `CloudSynthesizer.cover`."""

    cloud: _Cloud | None

    def field(self, row: int, col: int, height: int, width: int) -> CloudField:
        """Return the clouds of a window; it equals the same crop of any larger window bit by bit."""
        return _clear_sky(height, width) if self.cloud is None else self.cloud.field(row, col, height, width)


def _clear_sky(height: int, width: int) -> CloudField:
    zero = np.zeros((height, width), dtype=np.float32)
    return CloudField(zero, np.full((height, width, 3), _CLOUD_WHITE, dtype=np.float32), zero)


def _span(value: float | Sequence[float], name: str) -> tuple[float, float]:
    low, high = (value, value) if isinstance(value, (int, float)) else tuple(value)
    if not 0.0 <= low <= high <= 1.0:
        raise UserError(f"cloud {name} must be one number or (low, high) within 0..1, got {value}")
    return float(low), float(high)


def _quantile(noise: np.ndarray, share: float) -> float:
    """Return the value below which `share` of the pixels lie; a little below the lowest one for a share of 0."""
    index = round(share * noise.size) - 1
    if index < 0:
        return float(noise.min()) - 1e-3
    return float(np.partition(noise, index, axis=None)[index])


def _opacity(noise: np.ndarray, threshold: float, peak: float, softness: float) -> np.ndarray:
    """Map noise to opacity: a smooth step from 0 to `peak` that crosses `COVERED_ALPHA` exactly at the threshold."""
    # Inverse of the smooth step 3 x^2 - 2 x^3 at the height where the threshold shall lie.
    start = 0.5 - np.sin(np.arcsin(1.0 - 2.0 * COVERED_ALPHA / peak) / 3.0)
    ramp = np.clip((noise - np.float32(threshold)) * np.float32(0.5 / softness) + np.float32(start), 0.0, 1.0)
    return ramp * ramp * (3.0 - 2.0 * ramp) * np.float32(peak)


def _veil(ys: Double, xs: Double, haze_peak: float, cell: float, seed: int) -> Float:
    noise = fractal_normal(ys, xs, cell=1.5 * cell, octaves=2, seed=seed, persistence=0.5)
    return np.clip(noise * np.float32(0.5) + np.float32(0.1), 0.0, 1.0) * np.float32(haze_peak)


def _color(ys: Double, xs: Double, alpha: Float, level: float, shading: Float, cell: float, seed: int) -> Float:
    """Return (H, W, 3): nearly white, brighter towards the sun, bluish where thin."""
    noise = fractal_normal(ys, xs, cell=0.5 * cell, octaves=3, seed=seed, persistence=0.6)
    brightness = np.clip(np.float32(level) + noise * np.float32(_BRIGHTNESS_SPREAD) + shading, 0.0, 1.0)
    tint = 1.0 - (1.0 - alpha)[:, :, None] * _BLUISH
    return brightness[:, :, None] * tint * np.float32(_CLOUD_WHITE)
