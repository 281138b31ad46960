"""Fully sharded training: every process holds a part of each weight, of its gradient and of its optimiser state.

For models whose training state does not fit one device: 1.31 billion parameters in float32 take 21 GB with AdamW. Files
keep the layout of an unsharded run, so that checkpoints and training states go both ways, and between numbers of
processes.

Source: torch's fully_shard ("FSDP2"), https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mmovseg.errors import UserError

_KEEPS_WEIGHTS = "_keeps_weights_after_forward"


def shard_model(
    model: nn.Module, device: torch.device, *, block_lists: Sequence[str], reshard_after_forward: bool
) -> nn.Module:
    """Shard a model in place over all processes; the first one's weights count. In one process nothing happens.

    The parameters are other objects afterwards: build optimiser and averages later.

    Args:
        model: on `device`; called through its ``forward`` alone.
        device: of this process.
        block_lists: names of lists of modules, for example ``blocks`` of a vision transformer. Each of their elements
            is gathered when it runs; everything else is gathered for the length of a step.
        reshard_after_forward: give a block's gathered weights up after the forward pass and gather them again for the
            backward pass: less memory, half as much again to communicate.

    Returns:
        `model`.

    Raises:
        UserError: the model has no list of such a name, or a parameter that cannot be cut.
    """
    _check_parameters(model)
    lists = [module for name, module in model.named_modules() if name.rpartition(".")[2] in block_lists]
    blocks = [block for each in lists if isinstance(each, nn.Sequential | nn.ModuleList) for block in each]
    if not blocks:
        raise UserError(
            f"train.fsdp.block_lists is {list(block_lists)}, but no list of modules in the model has such a name"
        )
    if comm.get_world_size() == 1:
        return model
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, 0)
    mesh = init_device_mesh(device.type, (comm.get_world_size(),))
    for block in reversed(list(dict.fromkeys(blocks))):  # a list within a block's own parts comes after the block
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward, shard_placement_fn=_axis_to_cut)
        setattr(block, _KEEPS_WEIGHTS, not reshard_after_forward)
    fully_shard(model, mesh=mesh, reshard_after_forward=False, shard_placement_fn=_axis_to_cut)
    setattr(model, _KEEPS_WEIGHTS, True)
    return model


def _check_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise UserError(f"train.fsdp.enabled cannot cut parameter '{name}', which is a single number")
        if getattr(parameter, "frozen_rows", None) is not None:
            raise UserError(f"train.fsdp.enabled cannot keep rows of parameter '{name}' fixed; train it without")


def _axis_to_cut(parameter: nn.Parameter) -> Shard:
    """Cut along the first axis with equal parts: six stacked experts give four processes nothing even, their rows do.

    Torch cuts other axes than the first into equal parts alone; where none gives them, the first it is.
    """
    even = (axis for axis, size in enumerate(parameter.shape) if size % comm.get_world_size() == 0)
    return Shard(next(even, 0))


def class_name(model: nn.Module) -> str:
    """Return the name of a model's class; sharding puts another one in front."""
    return next(kind.__name__ for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))


def whole(value: Any) -> Any:
    """Return the full tensor of a sharded one; anything else as it is. All processes must call it alike."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, target: Tensor) -> Tensor:
    """Cut a full tensor as `target` is cut; as it is when `target` is not. Every process must hold all of `value`."""
    if not isinstance(target, DTensor):
        return value
    value = value.to(target.device)
    return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)


def gather_on_main(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return full tensors on the first process, sharded ones moved to the CPU; ``{}`` on the others.

    All processes must call it with the same names in the same order. Entries that are no sharded tensors, frozen or
    not, are passed on as they are.
    """
    gathered = {}
    for name, value in tensors.items():
        full = whole(value)  # one at a time: a process never holds more than one of them beside its own part
        if comm.is_main_process():
            gathered[name] = full.cpu() if isinstance(value, DTensor) else full
    return gathered


@contextmanager
def gathered_weights(model: nn.Module) -> Iterator[None]:
    """Give every process all weights for the length of the block, in which no process waits for another.

    An evaluation needs it: processes may have different numbers of images, and gathering waits for all of them. Costs
    the memory of the whole model once. All processes must enter and leave it together. Does nothing to a model that is
    not sharded.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(not getattr(part, _KEEPS_WEIGHTS), recurse=False)
            part.reshard()
