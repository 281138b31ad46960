"""Normalisation of raw pixel values, from the constants of an input contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmovseg.data.statistics import choose_statistics
from mmovseg.errors import UserError


class PixelNorm(nn.Module):
    """(clip(x) - mean) / std per channel; constants are not part of the state dict, they belong to the input contract.

    Args:
        mean, std: per channel, in the unit of the raster (0..255 for optical, dB for SAR by default).
        clip: values outside are limited first, in the same unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float], clip: Sequence[float] | None = None) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"need one positive std a mean, got mean {tuple(mean)} and std {tuple(std)}")
        self.clip = (float(clip[0]), float(clip[1])) if clip is not None else None
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32)[:, None, None], persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the constants lie."""
        return self.mean.device

    def for_item(self, item: Mapping[str, Any]) -> PixelNorm:
        """Return what normalises this model input: the same for all."""
        return self

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: (..., C, H, W) in raster units.
            valid: (..., H, W) bool; pixels without data become 0, the mean.

        Returns:
            float32 of the same shape.

        Raises:
            ValueError: the channel count differs from the constants'.
        """
        if x.shape[-3] != len(self.mean):
            raise ValueError(f"expected {len(self.mean)} channels, got {x.shape[-3]}")
        x = x.to(torch.float32)
        if self.clip is not None:
            x = x.clamp(*self.clip)
        x = (x - self.mean) / self.std
        return x if valid is None else torch.where(valid.unsqueeze(-3), x, torch.zeros_like(x))


def same_constants(one: PixelNorm | SourceNorm, other: PixelNorm | SourceNorm) -> bool:
    """Whether both normalise every image to the same values."""
    if one is other:
        return True
    if not isinstance(one, PixelNorm) or not isinstance(other, PixelNorm) or one.clip != other.clip:
        return False
    return torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)


class SourceNorm(nn.Module):
    """One `PixelNorm` a source, for a mix of sensors whose values mean different things.

    A model input says in `source` which one is its own. All give the same number of channels.

    Args:
        norms: by the name of the source.
        default: source of inputs that name none; None = they are refused.
        modality: of what is normalised; with "sar" the `sar_source` of an input goes before its `source`.

    Raises:
        UserError: no source, sources that differ in channels, or a default that is none of them.
    """

    def __init__(
        self,
        *,
        norms: Mapping[str, PixelNorm],
        default: str | None = None,
        modality: Literal["optical", "sar"] | None = None,
    ) -> None:
        super().__init__()
        if not norms:
            raise UserError("normalisation by source needs at least one source")
        channels = {name: len(norm.mean) for name, norm in norms.items()}
        if len(set(channels.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in channels.items())
            raise UserError(f"the sources of a mix must have the same number of channels, got: {counts}")
        if default is not None and default not in norms:
            raise UserError(f"the default source '{default}' is none of: {', '.join(norms)}")
        self.norms = nn.ModuleDict({_key(name): norm for name, norm in norms.items()})
        self.sources = tuple(norms)
        self.default = default
        self.modality = modality

    @property
    def device(self) -> torch.device:
        """Where the constants lie."""
        return next(self.norms.buffers()).device

    def for_item(self, item: Mapping[str, Any]) -> PixelNorm:
        """Return what normalises this model input.

        Raises:
            UserError: it names no source, or one that has no statistics here.
        """
        source = item.get("source", self.default)
        if self.modality == "sar":
            source = item.get("sar_source", source)
        if source is None or source not in self.sources:
            said = "names no source" if source is None else f"is of source '{source}'"
            raise UserError(
                f"sample '{item.get('file_name', '?')}' {said}; there are statistics of: {', '.join(self.sources)}"
            )
        norm = self.norms[_key(source)]
        assert isinstance(norm, PixelNorm)
        return norm


def _key(source: str) -> str:
    """Name of a source's norm: `nn.ModuleDict` takes no names of its own attributes, such as "train", and no dots."""
    return "of_" + source.replace(".", "/")


def norm_of_sources(
    *,
    statistics: str,
    modality: Literal["optical", "sar"] = "sar",
    sources: Sequence[str] | None = None,
    default: str | None = None,
) -> SourceNorm:
    """Build the normalisation of a mix from the statistics of its sources.

    Args:
        statistics: file or shipped name, see `mmovseg.data.statistics.read_statistics`.
        modality: which.
        sources: which; None = all of the statistics.
        default: see `SourceNorm`.

    Raises:
        UserError: the statistics are missing or lack a source, a channel is constant, or sources differ in channels.
    """
    norms = {}
    for name, found in choose_statistics(statistics, modality, sources).items():
        if min(found.std) <= 0:
            raise UserError(f"statistics '{statistics}': a {modality} channel of source '{name}' has the deviation 0")
        norms[name] = PixelNorm(mean=found.mean, std=found.std, clip=found.clip)
    return SourceNorm(norms=norms, default=default, modality=modality)
