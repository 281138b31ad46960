"""A sparse mixture of experts in the place of a transformer block's MLP (paper Sec. 3.3).

Letters: N images, L tokens an image, T = N*L, C width, E experts, k experts a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmovseg.projects.crossearth.modeling.experts import Experts, Implementation
from mmovseg.projects.crossearth.modeling.router import Gate, Router


@dataclass
class ExpertStatistics:
    """What one layer did with the last batch.

    counts: (E,) int64, choices of each expert among the counted tokens, T*k in all.
    tokens: number of counted tokens.
    probabilities: (E,) float32, mean routing probability over the counted tokens, with its graph in training.
    index: (N, L, k) int64, the experts of every token, counted or not.
    uncounted: so many tokens at the start of an image are not counted.
    """

    counts: Tensor
    tokens: int
    probabilities: Tensor
    index: Tensor
    uncounted: int = 0

    def per_image(self) -> Tensor:
        """`counts` of every image for itself: (N, E) int64."""
        index = self.index[:, self.uncounted :].flatten(1)
        empty = index.new_zeros(len(index), len(self.counts))
        return empty.scatter_add_(1, index, torch.ones_like(index))


class SparseMoE(nn.Module):
    """Sends every token to its k likeliest experts and adds up what they say, weighted by the gates (eq. 10).

    Router and experts read the same tokens: what the block's second norm gives. The paper's "token embeddings produced
    by attention" leaves open whether the router reads them before the norm; after it the logits are bounded. No token
    is dropped, and there is no noise, as the paper mentions neither.

    Args:
        mlp: of the block, copied into every expert.
        dim: C.
        num_experts: E.
        top_k: k.
        gate: see `Router`.
        num_descriptors: see `Router`; `descriptors` must be set before every forward pass if there are any.
        init_std: see `Router`.
        uncounted: so many tokens at the start of an image (class token, registers) are routed, but not counted.
        implementation: see `Experts`.
    """

    def __init__(
        self,
        mlp: nn.Module,
        *,
        dim: int,
        num_experts: int = 6,
        top_k: int = 1,
        gate: Gate = "st",
        num_descriptors: int = 3,
        init_std: float = 0.02,
        uncounted: int = 0,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        self.router = Router(
            dim,
            num_experts=num_experts,
            top_k=top_k,
            gate=gate,
            num_descriptors=num_descriptors,
            init_std=init_std,
        )
        self.experts = Experts(mlp, num_experts=num_experts, implementation=implementation)
        self.num_experts, self.top_k, self.uncounted = num_experts, top_k, uncounted
        self.descriptors: Tensor | None = None  # (N, D), of the images that come next
        self.last: ExpertStatistics | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) normalised tokens -> (N, L, C)."""
        routing = self.router(x, self.descriptors)
        self._remember(routing.index, routing.probabilities, x.shape[0], x.shape[1])
        experts = routing.index.flatten()
        order = experts.argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        rows = x.flatten(0, 1)
        if self.top_k > 1:
            rows = rows.repeat_interleave(self.top_k, dim=0)
        outputs = self.experts(_Permute.apply(rows, order, inverse), _count(experts, self.num_experts))
        outputs = _Permute.apply(outputs, inverse, order).unflatten(0, (-1, self.top_k))
        if routing.gates is not None:
            outputs = outputs * routing.gates.to(outputs.dtype)[..., None]
        return outputs.sum(dim=1).view(x.shape) if self.top_k > 1 else outputs.view(x.shape)

    def count_idle(self) -> int:
        """Number of parameters that a token does not meet: those of the experts that it does not go to."""
        whole = sum(parameter.numel() for parameter in self.experts.parameters())
        return whole // self.num_experts * (self.num_experts - self.top_k)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a batch: tensors with a graph cannot be copied."""
        return {**self.__dict__, "descriptors": None, "last": None}

    def _remember(self, index: Tensor, probabilities: Tensor, images: int, tokens: int) -> None:
        index = index.unflatten(0, (images, tokens))
        counted = index[:, self.uncounted :]
        means = probabilities if self.training else probabilities.detach()
        means = means.unflatten(0, (images, tokens))[:, self.uncounted :].mean(dim=(0, 1))
        counts = _count(counted.flatten(), self.num_experts)
        self.last = ExpertStatistics(counts, counted[..., 0].numel(), means, index, self.uncounted)


def _count(experts: Tensor, num_experts: int) -> Tensor:
    """(R,) expert numbers -> (E,) int64, without waiting for the device as `bincount` does."""
    return experts.new_zeros(num_experts).scatter_add_(0, experts, torch.ones_like(experts))


class _Permute(torch.autograd.Function):
    """Rows in another order; the backward pass is the inverse order, not the sum over equal indices of `index`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None
