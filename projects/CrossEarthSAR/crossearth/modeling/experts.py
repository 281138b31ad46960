"""The experts of a layer as stacked weights, and two ways to compute them on rows sorted by expert.

Letters: R rows, C width, H hidden width, E experts.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mmovseg.errors import UserError

Implementation = Literal["auto", "sorted", "grouped"]


class Experts(nn.Module):
    """E two-layer MLPs: w1 (E, H, C), b1 (E, H), w2 (E, C, H), b2 (E, C), all of them copies of one at the start.

    Stacked, every weight always gets a gradient, zero for an expert without rows, which a group of processes waits for.

    Args:
        mlp: the MLP of a timm block, which is copied.
        num_experts: E.
        implementation: ``sorted`` multiplies slice by slice, one expert after the other, on any device and type.
            ``grouped`` uses torch's grouped matrix product, bfloat16 on CUDA. ``auto`` takes ``grouped`` where the
            device has it and the rows are bfloat16, else ``sorted``.

    Raises:
        UserError: the MLP is no plain one (a gated or convolutional MLP, or one with a norm inside).
    """

    def __init__(self, mlp: nn.Module, *, num_experts: int, implementation: Implementation = "auto") -> None:
        super().__init__()
        if implementation not in get_args(Implementation):
            raise UserError(f"implementation must be one of {', '.join(get_args(Implementation))}: '{implementation}'")
        _check_mlp(mlp)
        self.implementation: Implementation = implementation
        self.act = mlp.act
        self.drop = float(mlp.drop1.p)
        self.w1, self.b1 = (nn.Parameter(_repeat(tensor, num_experts)) for tensor in (mlp.fc1.weight, mlp.fc1.bias))
        self.w2, self.b2 = (nn.Parameter(_repeat(tensor, num_experts)) for tensor in (mlp.fc2.weight, mlp.fc2.bias))

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Apply to each row its expert.

        Args:
            rows: (R, C), sorted by expert.
            counts: (E,) int64, rows of each expert, R in all; any may be 0.

        Returns:
            (R, C), in the type in which the rows were multiplied.
        """
        kind = rows.device.type
        if torch.is_autocast_enabled(kind):
            rows = rows.to(torch.get_autocast_dtype(kind))
        grouped = self.implementation == "grouped"
        if self.implementation == "auto":
            grouped = rows.dtype == torch.bfloat16 and has_grouped_product(rows.device)
        return self._grouped(rows, counts) if grouped else self._sorted(rows, counts)

    def _grouped(self, rows: Tensor, counts: Tensor) -> Tensor:
        """One product for all experts; the device is never waited for. The operation knows no autocast and no bias."""
        with torch.autocast(rows.device.type, enabled=False):
            ends = counts.cumsum(0).to(torch.int32)
            numbers = torch.arange(len(counts), device=rows.device)
            # as a product, so that the biases' gradients are one too
            member = torch.repeat_interleave(numbers, counts, output_size=len(rows))[:, None] == numbers
            member = member.to(rows.dtype)
            hidden = F.grouped_mm(rows, self.w1.to(rows.dtype).transpose(-2, -1), offs=ends)
            hidden = F.dropout(self.act(hidden + member @ self.b1.to(rows.dtype)), self.drop, self.training)
            output = F.grouped_mm(hidden, self.w2.to(rows.dtype).transpose(-2, -1), offs=ends)
            return F.dropout(output + member @ self.b2.to(rows.dtype), self.drop, self.training)

    def _sorted(self, rows: Tensor, counts: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            sizes, dtype = counts.tolist(), rows.dtype
            hidden = _SliceLinear.apply(rows, self.w1.to(dtype), self.b1.to(dtype), sizes)
            hidden = F.dropout(self.act(hidden), self.drop, self.training)
            output = _SliceLinear.apply(hidden, self.w2.to(dtype), self.b2.to(dtype), sizes)
            return F.dropout(output, self.drop, self.training)


class _SliceLinear(torch.autograd.Function):
    """Linear layers on consecutive slices of rows: rows (R, I), weight (E, O, I), bias (E, O), E sizes -> (R, O).

    The same from torch's own operations would copy: the outputs into one tensor, and in the backward pass the gradients
    of all weights, which for C = 1024 are 200 MB.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.sizes = sizes
        output = rows.new_empty(len(rows), weight.shape[1])
        slices = zip(rows.split(sizes), weight, bias, output.split(sizes), strict=True)
        for part, own_weight, own_bias, target in slices:
            if len(part):
                torch.addmm(own_bias, part, own_weight.T, out=target)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        to_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        to_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        to_bias = gradient.new_empty(weight.shape[:2]) if ctx.needs_input_grad[2] else None
        start = 0
        for number, size in enumerate(ctx.sizes):
            part = gradient[start : start + size]
            own = slice(start, start + size)
            if to_rows is not None and size:
                torch.mm(part, weight[number], out=to_rows[own])
            if to_weight is not None:  # of an expert without rows: the product over nothing, 0
                torch.mm(part.T, rows[own], out=to_weight[number])
            if to_bias is not None:
                torch.sum(part, dim=0, out=to_bias[number])
            start += size
        return to_rows, to_weight, to_bias, None


def has_grouped_product(device: torch.device) -> bool:
    """Whether torch has a grouped matrix product of bfloat16 for this device that is worth taking.

    On CPU it is no faster than slice by slice, and older than SM 8.0 it does not run.
    """
    if device.type != "cuda" or not hasattr(F, "grouped_mm"):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _repeat(tensor: Tensor, count: int) -> Tensor:
    return tensor.detach().expand(count, *tensor.shape).clone()


def _check_mlp(mlp: nn.Module) -> None:
    plain = type(mlp) is Mlp and isinstance(mlp.fc1, nn.Linear) and isinstance(mlp.norm, nn.Identity)
    if not plain or mlp.fc1.bias is None or mlp.fc2.bias is None:
        raise UserError(
            f"a block's {type(mlp).__name__} cannot become experts: only plain MLPs of two linear layers with biases "
            "can, not gated ones (SwiGLU)"
        )
