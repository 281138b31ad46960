"""Clouds of the package `satellite-cloud-generator` (Czerkawski et al., 2023), behind the interface of our own.

An independent implementation to check ours against, and a second look of clouds to test models under. The package is
optional: ``pip install satellite-cloud-generator``. What differs from `CloudSynthesizer`: cover cannot be chosen, the
shadow is a cloud of its own and lies anywhere, and with `effects` the image itself is changed under the cloud.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mmovseg.data.clouds import CloudField
from mmovseg.errors import UserError

PackageKindName = Literal["thin", "thick", "varied"]
_PRESETS: dict[PackageKindName, str] = {"thin": "THIN_CONFIG", "thick": "BIG_CONFIG", "varied": "WIDE_CONFIG"}
_NO_EFFECTS = {"channel_offset": 0, "channel_magnitude_shift": 0.0, "blur_scaling": 0.0, "cloud_color": False}
_SMALLEST_CANVAS_PX = 16
_WHITE = 255.0


class PackageClouds:
    """Draw clouds with `satellite-cloud-generator`, seeded, without touching any global random state.

    Args:
        kind: preset of the package: ``thin`` (its THIN_CONFIG), ``thick`` (BIG_CONFIG) or ``varied`` (WIDE_CONFIG, from
            nothing to fog; its opacity may exceed 0 everywhere).
        shadow: also its shadows.
        effects: its effects that no mask can hold: ground blurred under the cloud, bands shifted against each other, a
            cloud tinted by the mean colour of the image. The opacity returned is then the mean over bands. Without
            them the result is white cloud laid by `CloudField.apply`.
        options: further arguments of the package's `add_cloud_and_shadow`, which replace those of the preset.
        seed: added to the number of the cloud, so that two synthesizers differ.

    Raises:
        UserError: the package is not installed, or `kind` or an option is unknown.
    """

    def __init__(
        self,
        *,
        kind: PackageKindName = "varied",
        shadow: bool = True,
        effects: bool = True,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if kind not in _PRESETS:
            raise UserError(f"unknown cloud kind '{kind}'; the package has: {', '.join(get_args(PackageKindName))}")
        self._package = _import_package()
        known = inspect.signature(self._package.add_cloud_and_shadow).parameters
        for name in options or ():
            if name not in known or name in ("input", "return_cloud"):
                raise UserError(f"satellite-cloud-generator takes no option '{name}'")
        self.kind = kind
        self.shadow = shadow
        self.effects = effects
        self.seed = seed
        self._options = {**getattr(self._package, _PRESETS[kind]), **(options or {})}

    def __call__(
        self, optical: np.ndarray, rng: int | np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Put a new cloud over an image; arguments and results as of `CloudSynthesizer`."""
        height, width = optical.shape[:2]
        if not self.effects:
            field = self.field(height, width, rng)
            return field.apply(optical), field.alpha, field.shadow
        side = _canvas_side(height, width)
        canvas = np.pad(optical, ((0, side - height), (0, side - width), (0, 0)), mode="edge").astype(np.float32)
        image, alpha, shadow = self._draw(canvas.transpose(2, 0, 1) / np.float32(_WHITE), self._options, rng)
        clouded = np.clip(image[:, :height, :width].transpose(1, 2, 0), 0.0, 1.0) * np.float32(_WHITE)
        if optical.dtype == np.uint8:
            clouded = np.rint(clouded)
        alpha, shadow = (np.clip(mask.mean(axis=0)[:height, :width], 0.0, 1.0) for mask in (alpha, shadow))
        return clouded.astype(optical.dtype), alpha, shadow

    def field(self, height: int, width: int, rng: int | np.random.Generator | None = None) -> CloudField:
        """Draw one cloud, without effects, for images of (height, width) pixels; `rng` as in `CloudSynthesizer`."""
        side = _canvas_side(height, width)
        empty = np.zeros((1, side, side), dtype=np.float32)
        _, alpha, shadow = self._draw(empty, {**self._options, **_NO_EFFECTS}, rng)
        color = np.full((height, width, 3), _WHITE, dtype=np.float32)
        return CloudField(alpha[0, :height, :width], color, shadow[0, :height, :width])

    def _draw(
        self, image: np.ndarray, options: Mapping[str, Any], rng: int | np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run the package on (C, side, side) in 0..1; return image, opacity and shadow, each (C, side, side)."""
        draw = rng if isinstance(rng, np.random.Generator) else np.random.default_rng([self.seed, rng or 0])
        seed = int(draw.integers(2**63))
        batch = torch.from_numpy(image)[None]
        # Only the CPU's generator is drawn from. torch.manual_seed would also reseed every CUDA device.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            if self.shadow:
                clouded, alpha, shadow = self._package.add_cloud_and_shadow(batch, return_cloud=True, **options)
            else:
                own = {key: value for key, value in options.items() if key != "shadow_max_lvl"}
                clouded, alpha = self._package.add_cloud(batch, return_cloud=True, **own)
                shadow = torch.zeros_like(alpha)
        return _to_numpy(clouded), _to_numpy(alpha), _to_numpy(shadow)


def _import_package() -> ModuleType:
    try:
        import satellite_cloud_generator
    except ImportError as error:
        raise UserError(
            "these clouds need the package satellite-cloud-generator, which cannot be imported "
            f"({error}); install it with: pip install satellite-cloud-generator"
        ) from error
    return satellite_cloud_generator


def _canvas_side(height: int, width: int) -> int:
    """Return the side of the square to draw on: the package fails below 16 px and on long strips."""
    return max(height, width, _SMALLEST_CANVAS_PX)


def _to_numpy(batch: Tensor) -> np.ndarray:
    return np.asarray(batch[0].float().numpy())
