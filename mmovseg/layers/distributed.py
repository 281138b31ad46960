"""Small collectives that losses need; each is the identity in a single process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def global_mean_weight(count: Tensor) -> Tensor:
    """Return what a local sum must be divided by so that DDP's mean over processes is the mean over all elements.

    DDP averages gradients over W processes. With n_r elements on process r, ``sum_r / (sum of n_r / W)`` averaged over
    the processes is the global sum over the global count; ``sum_r / n_r`` would weigh every process alike.

    Args:
        count: scalar, number (or weight) of the elements in the local sum.

    Returns:
        Scalar float32 without gradient: the mean of `count` over the processes, at least 1e-6, so that a batch without
        any element gives a loss of 0 and not NaN.
    """
    total = count.detach().to(torch.float32).reshape(()).clone()
    if world_size() > 1:
        dist.all_reduce(total)
        total /= world_size()
    return total.clamp_min(1e-6)


class _AllGather(torch.autograd.Function):
    """Concatenate over processes; the gradient of each part goes back to where the part came from, summed."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(world_size())]
        dist.all_gather(parts, local.contiguous())
        ctx.rows = local.shape[0]  # type: ignore[attr-defined]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        start = dist.get_rank() * ctx.rows  # type: ignore[attr-defined]
        return grad[start : start + ctx.rows]  # type: ignore[attr-defined]


def all_gather_with_grad(local: Tensor) -> Tensor:
    """Concatenate `local` of all processes along the first axis, in rank order, with gradients.

    If every process computes the same loss of the gathered tensor, DDP's averaged gradient is that of one process
    with the whole batch.

    Args:
        local: (N, ...), of the same shape on every process.

    Returns:
        (W * N, ...); `local` itself in a single process.
    """
    return local if world_size() == 1 else _AllGather.apply(local)


def gather_rows(local: Tensor) -> tuple[Tensor, int]:
    """Concatenate rows of all processes, with gradients, also when the processes have different numbers of them.

    Args:
        local: (N_r, ...) of process r, equal but for the first axis.

    Returns:
        (sum of N_r, ...) in rank order, and the position of the first own row. `local` and 0 in a single process.
    """
    if world_size() == 1:
        return local, 0
    own = torch.tensor([len(local)], device=local.device)
    counts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(counts, own)
    lengths = [int(count) for count in counts]
    longest, start = max(lengths), sum(lengths[: dist.get_rank()])
    padded = torch.cat([local, local.new_zeros(longest - len(local), *local.shape[1:])])
    gathered = all_gather_with_grad(padded)
    kept = torch.cat([torch.arange(rank * longest, rank * longest + n) for rank, n in enumerate(lengths)])
    return gathered[kept.to(local.device)], start
