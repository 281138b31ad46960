"""LoRA: low-rank updates of linear layers, which can be folded into them afterwards.

Source: Hu et al., LoRA (2022), https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.projects.crossearth.modeling.adapters.base import Adapter


class LoRAAdapter(Adapter):
    """Add ``alpha / rank * B A x`` to what chosen linear layers of every block give; B starts at 0.

    Args:
        rank: of B A.
        alpha: scale of the update, times `rank`; None = `rank`, a factor of 1.
        targets: names of linear layers within a block. Experts are no linear layers of their own and cannot be chosen.

    Raises:
        UserError: a value out of range, or no targets.
    """

    def __init__(
        self, *, rank: int = 16, alpha: float | None = None, targets: Sequence[str] = ("attn.qkv", "attn.proj")
    ) -> None:
        super().__init__()
        if rank < 1 or not targets:
            raise UserError(f"LoRA needs rank 1 or more and targets, but rank is {rank} and targets {list(targets)}")
        self.rank, self.factor, self.targets = rank, (rank if alpha is None else alpha) / rank, tuple(targets)

    def attach(self, encoder: TimmEncoder) -> None:
        """See `Adapter`."""
        self.updates = nn.ModuleDict()
        for number, block in enumerate(encoder.model.blocks[: max(encoder.taps)], 1):
            updates = {}
            for target in self.targets:
                linear = dict(block.named_modules()).get(target)
                if not isinstance(linear, nn.Linear):
                    linears = [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
                    raise UserError(
                        f"LoRA has the target '{target}', which is no linear layer of block {number}; "
                        f"there are: {', '.join(linears)}"
                    )
                updates[target.replace(".", "_")] = update = _Update(linear, self.rank, self.factor)
                linear.register_forward_hook(_AddUpdate(update))
            self.updates[f"block{number}"] = nn.ModuleDict(updates)
            block.register_forward_hook(_CheckUpdates(self, number))


class _Update(nn.Module):
    """B A of one linear layer. `used` tells whether the layer was called as a module since the last look."""

    def __init__(self, linear: nn.Linear, rank: int, factor: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.factor, self.used = factor, False

    def forward(self, x: Tensor) -> Tensor:
        self.used = True
        return nn.functional.linear(nn.functional.linear(x, self.a), self.b) * self.factor

    @torch.no_grad()
    def fold_into(self, linear: nn.Linear) -> None:
        """Add B A to the weight."""
        linear.weight += (self.b @ self.a * self.factor).to(linear.weight)


# Hooks are objects and no closures, so that a copied encoder has hooks that hold its own copy of the updates.
class _AddUpdate:
    def __init__(self, update: _Update) -> None:
        self.update = update

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self.update(arguments[0])


class _CheckUpdates:
    """Some attention layers read the weight of a linear layer without calling it: a hook on it would do nothing."""

    def __init__(self, adapter: LoRAAdapter, number: int) -> None:
        self.adapter, self.number = adapter, number

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        for name, update in self.adapter.updates[f"block{self.number}"].items():  # type: ignore[operator]
            if not update.used:
                raise UserError(
                    f"LoRA cannot reach '{name}' of block {self.number}: the block does not call that layer"
                )
            update.used = False


def merge_lora(encoder: TimmEncoder) -> TimmEncoder:
    """Fold the updates into the weights and drop the adapter: an ordinary encoder with the same outputs.

    Args:
        encoder: from `adapt_encoder` with a `LoRAAdapter`; changed and returned.

    Raises:
        UserError: its adapter is another one or none.
    """
    adapter = getattr(encoder, "adapter", None)
    if not isinstance(adapter, LoRAAdapter):
        kind = "none" if adapter is None else f"a {type(adapter).__name__}"
        raise UserError(f"only LoRA can be folded into the weights, but the encoder's adapter is {kind}")
    for block in encoder.model.blocks[: len(adapter.updates)]:
        for module in block.modules():
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(hook, _AddUpdate) and isinstance(module, nn.Linear):
                    hook.update.fold_into(module)
                if isinstance(hook, _AddUpdate | _CheckUpdates):
                    del module._forward_hooks[key]
    del encoder.adapter
    return encoder
