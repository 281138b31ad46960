"""An image-text model and its pairs, and what each of two processes does with them; importable by a new process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mmovseg.projects.sartext.modeling.image_text import ImageTextModel
from mmovseg.projects.sartext.modeling.norms import grey_norm

_VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
_TEXT = {"context_length": 16, "vocab_size": 800, "width": 32, "heads": 2, "layers": 1}
_COCA = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4, "output_tokens": True}
CLIP = {"embed_dim": 32, "vision_cfg": _VISION, "text_cfg": _TEXT}
COCA = {
    "embed_dim": 32,
    "vision_cfg": {**_VISION, **_COCA},
    "text_cfg": {**_TEXT, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": _TEXT,
}
CAPTIONS = ["a ship", "two ships", "a bridge", "a ship"]


def make(kind="clip", **options):
    """A tiny model that reads a SAR band as grey; the same weights in every call."""
    torch.manual_seed(0)
    defaults = {"norm": grey_norm(clip=(-25.0, 5.0)), "bands": (0, 0, 0)}
    architecture = None if "name" in options else (CLIP if kind == "clip" else COCA)
    return ImageTextModel(kind=kind, architecture=architecture, **{**defaults, **options})


def inputs(captions=CAPTIONS, *, size=16, bands=2, **more):
    """SAR images with one caption each."""
    rng = torch.Generator().manual_seed(1)
    return [
        {
            "sar": torch.randn(bands, size, size, generator=rng) * 6 - 12,
            "caption": text,
            "file_name": f"{n}.tif",
            **more,
        }
        for n, text in enumerate(captions)
    ]


def losses_and_gradients(model, items):
    """Losses and gradients, by name."""
    losses = model(items)
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}, {
        name.removeprefix("module."): p.grad for name, p in model.named_parameters() if p.grad is not None
    }


def work(rank, port, folder):
    """Store this process's losses and DDP's gradients for its half of the pairs."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = DistributedDataParallel(make("clip").train())
    torch.save(losses_and_gradients(model, inputs()[2 * rank : 2 * rank + 2]), f"{folder}/{rank}.pth")
    dist.destroy_process_group()
