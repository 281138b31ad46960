"""One process or many: detectron2's `launch`, `torchrun`, CUDA or CPU."""

from __future__ import annotations

import datetime
import inspect
import logging
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn
from torch.multiprocessing import ProcessExitedException
from torch.nn.parallel import DistributedDataParallel

from mmovseg.engine.sharding import shard_model
from mmovseg.errors import UserError

logger = logging.getLogger(__name__)

_TIMEOUT = datetime.timedelta(minutes=30)
USER_ERROR_STATUS = 2


def under_torchrun() -> bool:
    """True when the environment says that another program started this process as one of several."""
    return (
        all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")) and int(os.environ["WORLD_SIZE"]) > 1
    )


def join_torchrun(device: str, *, timeout: datetime.timedelta = _TIMEOUT) -> None:
    """Join the process group that the environment describes: nccl on CUDA, gloo on a CPU.

    Args:
        device: of the config, see `choose_device`.
        timeout: how long a process waits for the others before it gives up.

    Raises:
        UserError: more processes than CUDA devices.
    """
    local_rank, local_size = (
        int(os.environ["LOCAL_RANK"]),
        int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])),
    )
    uses_cuda = torch.cuda.is_available() and device != "cpu"
    if uses_cuda and local_size > torch.cuda.device_count():
        raise UserError(
            f"{local_size} processes were started on a machine with {torch.cuda.device_count()} CUDA device(s)"
        )
    if uses_cuda:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if uses_cuda else "gloo", timeout=timeout)
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(local_size)
        return
    for start in range(0, dist.get_world_size(), local_size):  # detectron2 0.6 has no function for this
        group = dist.new_group(list(range(start, start + local_size)))
        if start <= dist.get_rank() < start + local_size:
            comm._LOCAL_PROCESS_GROUP = group


def leave() -> None:
    """Leave the process group, if there is one, so that this process can start another run."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        comm._LOCAL_PROCESS_GROUP = None
        comm._get_global_gloo_group.cache_clear()  # detectron2 keeps the group that has just gone


def spawn(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    num_gpus: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str,
    device: str,
) -> None:
    """Run `function(*args)` in `num_gpus` processes on this machine with detectron2's `launch`.

    Without CUDA (or with ``train.device=cpu``) these are CPU processes that talk over gloo.

    Raises:
        UserError: more processes than CUDA devices, or several machines without an address.
        SystemExit: a process ended with a user error, which it has printed itself.
    """
    if num_machines > 1 and dist_url == "auto":
        raise UserError("--num-machines needs --dist-url tcp://HOST:PORT of machine 0, the same on every machine")
    if not 0 <= machine_rank < num_machines:
        raise UserError(f"--machine-rank is {machine_rank} but must lie between 0 and {num_machines - 1}")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the new processes then choose gloo
    elif torch.cuda.is_available() and num_gpus > torch.cuda.device_count():
        raise UserError(f"--num-gpus is {num_gpus} but this machine has {torch.cuda.device_count()} CUDA device(s)")
    if device == "cpu" or not torch.cuda.is_available():
        print(f"no CUDA in use: --num-gpus {num_gpus} starts {num_gpus} CPU processes over gloo", flush=True)
    try:
        detectron2_launch(function, num_gpus, num_machines, machine_rank, dist_url, args)
    except ProcessExitedException as error:
        if error.exit_code == USER_ERROR_STATUS:
            raise SystemExit(USER_ERROR_STATUS) from None
        raise


def choose_device(name: str) -> torch.device:
    """Return this process's device for ``train.device``.

    Raises:
        UserError: unknown, or CUDA was asked for and is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"train.device is '{name}' but must be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"train.device is '{name}' but torch {torch.__version__} sees no CUDA device")
        if comm.get_world_size() > 1:
            device = torch.device("cuda", comm.get_local_rank())
        elif device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UserError(f"train.device is '{name}' but there are {torch.cuda.device_count()} CUDA device(s)")
        torch.cuda.set_device(device)
    return device


def set_threads(num_threads: int, device: torch.device) -> None:
    """Set torch's threads; 0 = its default, divided among the CPU processes of one machine."""
    if num_threads > 0:
        torch.set_num_threads(num_threads)
    elif device.type == "cpu" and comm.get_world_size() > 1 and "OMP_NUM_THREADS" not in os.environ:
        local_size = dist.get_world_size(comm._LOCAL_PROCESS_GROUP)
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size))


def prepare_for_processes(model: nn.Module, device: torch.device, train: DictConfig) -> nn.Module:
    """Wrap for DDP, or shard in place, as ``train.fsdp`` says; call it before parameters are handed to others.

    Raises:
        UserError: the model cannot be sharded as it is.
    """
    if not train.fsdp.enabled:
        return wrap_for_ddp(model, device, **train.ddp)
    return shard_model(
        model,
        device,
        block_lists=list(train.fsdp.block_lists),
        reshard_after_forward=train.fsdp.reshard_after_forward,
    )


def wrap_for_ddp(
    model: nn.Module, device: torch.device, *, find_unused_parameters: bool, broadcast_buffers: bool
) -> nn.Module:
    """Wrap for several processes (arguments: see `DdpCfg`); the model itself in one."""
    if comm.get_world_size() == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None  # a CPU model must not name a device
    new_name = "forward_sync_buffers"  # torch 2.14 renamed the argument and warns about the old name
    takes_new = new_name in inspect.signature(DistributedDataParallel.__init__).parameters
    buffers = {new_name if takes_new else "broadcast_buffers": broadcast_buffers}
    return DistributedDataParallel(model, device_ids=ids, find_unused_parameters=find_unused_parameters, **buffers)
