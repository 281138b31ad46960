"""Contrast of optical and SAR images in a space conditioned on the other sensor (paper Sec. III-C, Eq. 3-4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.layers.distributed import gather_rows, world_size
from mmovseg.modeling.losses import info_nce
from mmovseg.projects.codemae.losses.silence import silenced, zero_of

Mode = Literal["conditioned", "vanilla", "linear", "mlp"]
Gather = Literal["official", "differentiable"]


@dataclass(frozen=True)
class ContrastSpec:
    """What the contrast is to be; the pretrainer builds it, since it knows the width of the tokens.

    mode: of the space that is contrasted. ``conditioned``: tokens with what they find in the other sensor's (the
        paper); ``vanilla``: tokens as they are; ``linear`` and ``mlp``: a head of its own for each sensor behind the
        pooled tokens.
    gather: whether gradients flow into the negatives and positives that are compared with: ``official`` not with more
        than one process, as in the release, whose gather has no gradient; with one process they always do.
        ``differentiable``: always, so that several processes give the gradients of one with the whole batch. Images
        that are no pairs are then still the negatives of other processes, and get gradients from there.
    num_heads: of the cross-attention.
    temperature: tau, fixed.

    Raises:
        UserError: unknown mode or gather, or a temperature that is not positive.
    """

    mode: Mode = "conditioned"
    gather: Gather = "official"
    num_heads: int = 16
    temperature: float = 0.07

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mode", self.mode, get_args(Mode)),
            ("gather", self.gather, get_args(Gather)),
        ):
            if value not in known:
                raise UserError(f"model.contrast.{name} is '{value}' but must be one of {', '.join(known)}")
        if self.temperature <= 0:
            raise UserError(f"model.contrast.temperature must be positive, got {self.temperature:g}")


class CrossAttention(nn.Module):
    """What tokens of one sensor find in those of the other: softmax(Q K^T / sqrt(d)) V, both sides through a norm.

    The norms keep torch's eps of 1e-5, as the release does here and nowhere else.

    Args:
        dim: D, a multiple of `num_heads`.
        num_heads: of the attention.
    """

    def __init__(self, dim: int, *, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"model.contrast.num_heads is {num_heads}, which does not divide the width {dim}")
        self.num_heads = num_heads
        self.norm_q, self.norm_kv = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """(N, V, D) tokens and (N, U, D) of the other sensor -> (N, V, D), to be added to the tokens."""
        q = self.q(self.norm_q(tokens)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(self.norm_kv(context)).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ConditionedContrast(nn.Module):
    r"""Symmetric InfoNCE between the two images of a pair, against all images of all processes.

        c^O = t^O + CA_O(t^O, t^S),   c^S = t^S + CA_S(t^S, t^O),   g = mean over visible units of c, of unit length
        L_CCL = 1/2 [ CE( g^O G^S^T / tau, y ) + CE( g^S G^O^T / tau, y ) ]

    t: fused visible tokens; CA: `CrossAttention`, one for each sensor; G: the rows g of all processes; y: position of
    the own pair in G. Adding what the attention finds, and not replacing the tokens by it, lets it take the pressure of
    the alignment (paper Sec. III-C). Other modes: `ContrastSpec`.

    Units count in the mean by their share of pixels with data; a pair of which one image shows none is left out.

    Args:
        spec: options.
        dim: D, width of the tokens.
    """

    def __init__(self, spec: ContrastSpec, *, dim: int) -> None:
        super().__init__()
        self.spec = spec
        if spec.mode == "vanilla":
            return
        for sensor in ("optical", "sar"):
            self.add_module(sensor, _head(spec, dim))

    def forward(
        self, optical: Tensor, sar: Tensor, *, shares: tuple[Tensor | None, Tensor | None] = (None, None), paired: bool
    ) -> Tensor:
        """Contrast; all processes must call it, with pairs or without.

        Args:
            optical, sar: (B, V, D) fused visible tokens; row b of both is one pair.
            shares: of both, (B, V) in [0, 1], which part of the unit's pixels holds data; None = all do.
            paired: whether they are pairs. If not the loss is 0 and its gradients are zeros, but the images are still
                negatives of the other processes, as in the release.

        Returns:
            0-d loss.
        """
        if paired:
            return self._contrast(optical, sar, shares)
        if self.spec.gather == "differentiable" and world_size() > 1:
            return silenced(self._contrast(optical, sar, shares))  # others' losses send their gradients through here
        if world_size() > 1:
            with torch.no_grad():
                self._contrast(optical, sar, shares)
        return zero_of(self.parameters()).to(optical.device)

    def _contrast(self, optical: Tensor, sar: Tensor, shares: tuple[Tensor | None, Tensor | None]) -> Tensor:
        first, second = self._embed(optical, sar, shares)
        there = _shows(shares[0], len(first), first.device) & _shows(shares[1], len(first), first.device)
        rows = torch.stack([first[there], second[there]], dim=1).float()
        if self.spec.gather == "official" and world_size() > 1:
            keys, start = gather_rows(rows.detach())
        else:
            keys, start = gather_rows(rows)
        own = start + torch.arange(len(rows), device=rows.device)
        losses = [
            info_nce(rows[:, this], keys[:, 1 - this], own, temperature=self.spec.temperature)[0] for this in (0, 1)
        ]
        return torch.stack(losses).mean()

    def _embed(
        self, optical: Tensor, sar: Tensor, shares: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Return g of both, (B, D), not yet of unit length."""
        if self.spec.mode == "conditioned":
            optical, sar = optical + self.optical(optical, sar), sar + self.sar(sar, optical)
        pooled = _pool(optical, shares[0]), _pool(sar, shares[1])
        if self.spec.mode in ("linear", "mlp"):
            return self.optical(pooled[0]), self.sar(pooled[1])
        return pooled


def _head(spec: ContrastSpec, dim: int) -> nn.Module:
    if spec.mode == "conditioned":
        return CrossAttention(dim, num_heads=spec.num_heads)
    if spec.mode == "linear":
        return nn.Linear(dim, dim)
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))


def _pool(tokens: Tensor, share: Tensor | None) -> Tensor:
    """(B, V, D) -> (B, D)."""
    if share is None:
        return tokens.mean(dim=1)
    weights = share[..., None].to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-6)


def _shows(share: Tensor | None, rows: int, device: torch.device) -> Tensor:
    """Images that show anything at all, (B,) bool."""
    return torch.ones(rows, dtype=torch.bool, device=device) if share is None else share.sum(dim=1) > 0
