"""An aligner and its pairs, and what each of two processes does with them; a module that a new process can import."""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.meta_arch import PatchAligner

_VIT = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


def make_aligner(**options):
    """A tiny aligner of a frozen encoder of three channels and one of two, both random, the same in every call."""
    torch.manual_seed(0)
    common = {"name": "vit_small_patch8_224", "taps": (1, 2), "image_size": 16, "model_args": dict(_VIT)}
    return PatchAligner(
        teacher=TimmEncoder(**common),
        student=TimmEncoder(**common, in_chans=2, freeze=False),
        teacher_norm=PixelNorm(mean=(128.0,) * 3, std=(64.0,) * 3),
        student_norm=PixelNorm(mean=(-12.0, -18.0), std=(5.0, 5.0)),
        **{"patches_per_step": None, **options},
    )


def paired_inputs(count=4, *, holes=True):
    """`count` pairs of 16 pixels; with holes, later images have ever less valid SAR."""
    generator = torch.Generator().manual_seed(3)
    inputs = []
    for number in range(count):
        valid = torch.ones(16, 16, dtype=torch.bool)
        if holes:
            valid[: 4 * number] = False
        inputs.append(
            {
                "image_clear": 255 * torch.rand(3, 16, 16, generator=generator),
                "sar": -20 + 10 * torch.rand(2, 16, 16, generator=generator),
                "sar_valid": valid,
                "file_name": f"pair{number}",
            }
        )
    return inputs


def losses_and_gradients(model, inputs):
    """Losses and the gradients of the student, by name."""
    with EventStorage(0):
        losses = model(inputs)
    sum(losses.values()).backward()
    student = (model.module if isinstance(model, DistributedDataParallel) else model).named_parameters()
    return {name: loss.detach() for name, loss in losses.items()}, {
        name: parameter.grad for name, parameter in student if parameter.grad is not None
    }


def work(rank, port, folder, options):
    """Store this process's losses and DDP's gradients for its half of the pairs, two steps with one set of weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = DistributedDataParallel(make_aligner(**options).train())
    mine = paired_inputs()[2 * rank : 2 * rank + 2]
    for step in range(2):
        model.zero_grad()
        torch.save(losses_and_gradients(model, mine), f"{folder}/{rank}-{step}.pth")
    dist.destroy_process_group()
