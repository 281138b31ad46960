"""The experts of a layer as stacked weights, and two ways to compute them on rows sorted by expert.

Letters: R rows, C width, H hidden width, E experts.
"""

from __future__ import annotations

from typing import Literal, get_args

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
        self.drop = float(mlp.drop1.p)  # type: ignore[union-attr, arg-type]
        self.w1, self.b1 = (nn.Parameter(_repeat(tensor, num_experts)) for tensor in (mlp.fc1.weight, mlp.fc1.bias))  # type: ignore[union-attr]
        self.w2, self.b2 = (nn.Parameter(_repeat(tensor, num_experts)) for tensor in (mlp.fc2.weight, mlp.fc2.bias))  # type: ignore[union-attr]

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Apply to each row its expert.

        Args:
            rows: (R, C), sorted by expert.
            counts: (E,) int64, rows of each expert, R in all; any may be 0.

        Returns:
            (R, C), in the type in which the rows were multiplied.
        """
        dtype = torch.get_autocast_dtype(rows.device.type) if _autocasts(rows) else rows.dtype
        grouped = self.implementation == "grouped"
        if self.implementation == "auto":
            grouped = dtype == torch.bfloat16 and has_grouped_product(rows.device)
        return self._grouped(rows.to(dtype), counts) if grouped else self._sorted(rows, counts)

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
        # unbind, not w1[e]: the backward pass then stacks the gradients once instead of once an expert
        weights = zip(self.w1.unbind(), self.b1.unbind(), self.w2.unbind(), self.b2.unbind(), strict=True)
        outputs = []
        for part, (w1, b1, w2, b2) in zip(rows.split(counts.tolist()), weights, strict=True):
            if len(part):
                hidden = F.dropout(self.act(F.linear(part, w1, b1)), self.drop, self.training)
                outputs.append(F.dropout(F.linear(hidden, w2, b2), self.drop, self.training))
        return torch.cat(outputs)


def has_grouped_product(device: torch.device) -> bool:
    """Whether torch has a grouped matrix product of bfloat16 for this device that is worth taking.

    On CPU it is no faster than slice by slice, and older than SM 8.0 it does not run.
    """
    if device.type != "cuda" or not hasattr(F, "grouped_mm"):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _autocasts(rows: Tensor) -> bool:
    return torch.is_autocast_enabled(rows.device.type)


def _repeat(tensor: Tensor, count: int) -> Tensor:
    return tensor.detach().expand(count, *tensor.shape).clone()


def _check_mlp(mlp: nn.Module) -> None:
    plain = type(mlp) is Mlp and isinstance(mlp.fc1, nn.Linear) and isinstance(mlp.norm, nn.Identity)
    if not plain or mlp.fc1.bias is None or mlp.fc2.bias is None:  # type: ignore[union-attr]
        raise UserError(
            f"a block's {type(mlp).__name__} cannot become experts: only plain MLPs of two linear layers with biases "
            "can, not gated ones (SwiGLU)"
        )
