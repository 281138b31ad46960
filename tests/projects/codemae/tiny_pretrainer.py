"""A pretrainer of a few thousand weights with its pairs, and what each of two processes does with them; a module that a
new process can import."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.codemae.losses import ContrastSpec, CrossSpec, DistillationSpec
from mmovseg.projects.codemae.modeling import pretrainer
from mmovseg.projects.codemae.modeling.decoder import DecoderSpec
from mmovseg.projects.codemae.modeling.hivit import HiViT
from mmovseg.projects.codemae.modeling.pretrainer import CoDeMAE
from mmovseg.projects.codemae.modeling.teacher import FrozenTeacher

OPTICAL_NORM = {"mean": (128.0,) * 3, "std": (64.0,) * 3}
SAR_NORM = {"mean": (-12.0, -18.0), "std": (5.0, 5.0)}
SIDE = 32  # pixels: 4x4 units, of which 4 stay visible


def make_encoder(**options):
    return HiViT(
        **{
            "in_chans": {"optical": 3, "sar": 2},
            "stem_dim": 8,
            "depths": (1, 1, 4),
            "num_heads": 2,
            "unit_size": 8,
            "image_size": SIDE,
            "pyramid_dim": 8,
            **options,
        }
    )


def make_teacher(**options):
    vit = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    encoder = {"name": "vit_small_patch8_224", "image_size": SIDE, "model_args": vit}
    return FrozenTeacher(**{"encoder": encoder, "width": 16, **OPTICAL_NORM, **options})


def make_pretrainer(*, encoder=None, cross=None, contrast=None, distillation=None, plain=False, **options):
    """A tiny pretrainer, the same in every call; `cross`, `contrast`, `distillation`: options of theirs."""
    torch.manual_seed(0)
    parts = {
        "cross": CrossSpec(**(cross or {})),
        "contrast": ContrastSpec(**{"num_heads": 2, **(contrast or {})}),
        "distillation": DistillationSpec(**{"teacher": make_teacher(), "num_heads": 2, **(distillation or {})}),
    }
    return CoDeMAE(
        encoder=encoder or make_encoder(),
        decoder=DecoderSpec(dim=32, depth=1, num_heads=2),
        optical_norm=PixelNorm(**OPTICAL_NORM),
        sar_norm=PixelNorm(**SAR_NORM),
        **({} if plain else parts),
        **options,
    )


def make_pairs(count=4, *, paired=True, holes=False, side=SIDE):
    """`count` inputs of noise; with holes, later images lack ever more of their pixels, SAR more than optical."""
    generator = torch.Generator().manual_seed(3)
    inputs = []
    for number in range(count):
        item = {
            "image": 255 * torch.rand(3, side, side, generator=generator),
            "sar": -15 + 5 * torch.randn(2, side, side, generator=generator),
            "paired": paired,
            "file_name": f"pair{number}",
        }
        if holes:
            item["valid"] = torch.ones(side, side, dtype=torch.bool)
            item["sar_valid"] = torch.ones(side, side, dtype=torch.bool)
            item["valid"][:, : 2 * number] = False
            item["sar_valid"][: 6 * number] = False
        inputs.append(item)
    return inputs


def total(losses):
    return torch.stack([value for name, value in losses.items() if name.startswith("loss")]).sum()


def losses_and_gradients(model, inputs):
    """Losses and gradients by name; masks are drawn anew each time unless they are pinned."""
    losses = model(inputs)
    total(losses).backward()
    own = model.module if isinstance(model, DistributedDataParallel) else model
    gradients = {name: parameter.grad for name, parameter in own.named_parameters()}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def pin_masks(first, count):
    """Let pairs `first` to `first` + `count` - 1 always have the masks that they have in a batch of all."""
    masks = torch.rand(16, 16, generator=torch.Generator().manual_seed(5)).argsort(dim=1)[:, :4]
    pretrainer.draw_visible = lambda rows, units, ratio: masks[first : first + count]


def work(rank, port, folder, options, kinds):
    """Store this process's losses and DDP's gradients for its half of four pairs, two steps with one set of weights.

    kinds: whether the images of each process are pairs.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    pin_masks(2 * rank, 2)
    # Many buckets, as large models have them: a collective of the backward pass must meet them in one order everywhere.
    model = DistributedDataParallel(make_pretrainer(**options).train(), bucket_cap_mb=0.002)
    mine = make_pairs(holes=True)[2 * rank : 2 * rank + 2]
    for item in mine:
        item["paired"] = kinds[rank]
    for step in range(2):
        model.zero_grad()
        torch.save(losses_and_gradients(model, mine), f"{folder}/{rank}-{step}.pth")
    dist.destroy_process_group()
