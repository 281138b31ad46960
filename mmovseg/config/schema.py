"""What `train` of a config file may hold, with types: a wrong key or type is an error and never passes in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import DictConfig

from mmovseg.errors import UserError


@dataclass
class CheckpointCfg:
    """When weights and the training state are written."""

    # Iterations between two checkpoints; 0 = only the final one.
    period: int = 5000
    # How many periodic weight files are kept; 0 = all. The final and the best file are never removed.
    max_to_keep: int = 2


@dataclass
class AmpCfg:
    """Automatic mixed precision."""

    enabled: bool = False
    # "bfloat16" (no loss scaling; also on a CPU, where it is slow) or "float16" (CUDA only, with loss scaling).
    dtype: str = "bfloat16"


@dataclass
class ClipGradCfg:
    """Clipping of the gradient's L2 norm over all trainable parameters together."""

    enabled: bool = False
    max_norm: float = 1.0


@dataclass
class EmaCfg:
    """Exponential moving average of the trainable weights; when enabled, it is what is evaluated and released."""

    enabled: bool = False
    # Reached after a warm-up: the decay of step n (from 0) is min(decay, (1 + n) / (10 + n)).
    decay: float = 0.999


@dataclass
class DdpCfg:
    """Arguments of DistributedDataParallel (used with more than one process)."""

    # Allow steps in which some trainable parameters take no part; costs a walk over the graph.
    find_unused_parameters: bool = False
    # Copy the first process's buffers to the others before each step.
    broadcast_buffers: bool = False


@dataclass
class FsdpCfg:
    """Fully sharded training with more than one process, in place of DistributedDataParallel.

    Needs a model that every process uses alike in a step. Weights and training states have the usual layout.
    """

    enabled: bool = False
    # Names of lists of modules whose elements are gathered one by one as they run, such as a transformer's blocks.
    block_lists: list[str] = field(default_factory=lambda: ["blocks"])
    # Give up a block's gathered weights between its forward and its backward pass: less memory, half as much again to
    # communicate.
    reshard_after_forward: bool = True


@dataclass
class SelectBestCfg:
    """Keep `model_best.safetensors`, apart from the last checkpoint, by a metric of the periodic evaluation."""

    # For example "sem_seg/mIoU", or "<loader name>/sem_seg/mIoU" with several test loaders; "" = off.
    metric: str = ""
    # "max" or "min".
    mode: str = "max"


@dataclass
class TrainCfg:
    """What is neither model, data nor optimiser. Use as ``train = OmegaConf.structured(TrainCfg)``."""

    # Folder for weights, logs and evaluation results.
    output_dir: str = "output/default"
    # Seeds Python, NumPy and torch (plus the rank), and the train loader if that sets no seed of its own.
    seed: int = 0
    # "auto" (CUDA if present), "cpu", "cuda" or "cuda:N".
    device: str = "auto"
    # Weights to start from or to evaluate; null = the model as built.
    init_checkpoint: str | None = None
    # Top-level entry of a .pth file that holds the weights; null = the only one of model/state_dict/teacher.
    init_key: str | None = None
    # Glob patterns of model keys that `init_checkpoint` may lack.
    init_allow_missing: list[str] = field(default_factory=list)
    # Glob patterns of keys in `init_checkpoint` that the model may lack.
    init_allow_unexpected: list[str] = field(default_factory=list)
    # Optimiser steps.
    max_iter: int = 1000
    # Iterations between two progress lines.
    log_period: int = 20
    # Iterations between two evaluations; 0 = only after the last one, -1 = never.
    eval_period: int = 0
    checkpoint: CheckpointCfg = field(default_factory=CheckpointCfg)
    amp: AmpCfg = field(default_factory=AmpCfg)
    clip_grad: ClipGradCfg = field(default_factory=ClipGradCfg)
    ema: EmaCfg = field(default_factory=EmaCfg)
    ddp: DdpCfg = field(default_factory=DdpCfg)
    fsdp: FsdpCfg = field(default_factory=FsdpCfg)
    select_best: SelectBestCfg = field(default_factory=SelectBestCfg)
    # Write TensorBoard events beside metrics.json.
    tensorboard: bool = True
    # Let cuDNN search for the fastest convolution (fixed input sizes only).
    cudnn_benchmark: bool = False
    # Ask torch for deterministic kernels (slower on CUDA; a CPU repeats its results without it).
    deterministic: bool = False
    # Compile the model with torch.compile.
    compile: bool = False
    # Threads of torch in each process; 0 = torch's default, shared out when one machine runs several CPU processes.
    num_threads: int = 0


_CHOICES = {"amp.dtype": ("float16", "bfloat16"), "select_best.mode": ("max", "min")}
_MINIMA = {
    "seed": 0,
    "max_iter": 0,
    "log_period": 1,
    "eval_period": -1,
    "checkpoint.period": 0,
    "checkpoint.max_to_keep": 0,
    "num_threads": 0,
}


def check_train_cfg(train: DictConfig, source: str) -> None:
    """Check the values that types alone do not.

    Raises:
        UserError: a value is outside its choices or range; names `source`, the key and the value.
    """

    def value_of(key: str) -> object:
        node: object = train
        for part in key.split("."):
            node = getattr(node, part)
        return node

    for key, choices in _CHOICES.items():
        if value_of(key) not in choices:
            raise UserError(f"{source}: train.{key} is '{value_of(key)}' but must be one of {', '.join(choices)}")
    for key, low in _MINIMA.items():
        if value_of(key) < low:  # type: ignore[operator]
            raise UserError(f"{source}: train.{key} is {value_of(key)} but must be at least {low}")
    if not 0.0 <= train.ema.decay < 1.0:
        raise UserError(f"{source}: train.ema.decay is {train.ema.decay} but must lie in [0, 1)")
    if train.fsdp.enabled and train.compile:
        raise UserError(f"{source}: train.fsdp.enabled and train.compile exclude each other; set one of them")
    if train.fsdp.enabled and train.amp.enabled and train.amp.dtype == "float16":
        raise UserError(f"{source}: train.fsdp.enabled needs train.amp.dtype=bfloat16, but it is float16")
    if train.clip_grad.enabled and train.clip_grad.max_norm <= 0:
        raise UserError(f"{source}: train.clip_grad.max_norm is {train.clip_grad.max_norm} but must be above 0")
