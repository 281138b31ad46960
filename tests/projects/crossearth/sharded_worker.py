"""Gradients of sharded encoders on two processes; a module that a new process can import."""

from __future__ import annotations

import copy
import datetime

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn

from mmovseg.engine.sharding import shard_model, whole
from mmovseg.projects.crossearth.modeling.adapters import EarthAdapter, LoRAAdapter, adapt_encoder
from mmovseg.projects.crossearth.modeling.moe_encoder import MoEEncoder


class Squares(nn.Module):
    """The mean square of all maps, and the losses of the encoder's own."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.encoder(x)
        loss = torch.stack([level.square().mean() for level in maps.values()]).sum()
        return {"loss": loss, **self.encoder.auxiliary_losses()}


def make_model(adapter: str) -> Squares:
    torch.manual_seed(0)
    encoder = MoEEncoder(
        "vit_small_patch16_224",
        taps=(1, 3),
        num_experts=3,
        balance_weight=0.5,
        model_args=dict(patch_size=4, embed_dim=18, depth=3, num_heads=3),
        image_size=16,
        checkpointing=True,
    )
    if adapter:
        kinds = {"earth": EarthAdapter(rank=3, frequency_blocks=1), "lora": LoRAAdapter(rank=3)}
        adapt_encoder(encoder, adapter=kinds[adapter])
        with torch.no_grad():
            for parameter in encoder.adapter.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
    return Squares(encoder).train()


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    losses = model(x)
    sum(losses.values()).backward()
    return {name: whole(each.grad) for name, each in model.named_parameters() if each.grad is not None}


def work(rank: int, port: int, folder: str) -> None:
    """Write the gradients of the whole batch on one replica, and of its halves on the sharded model."""
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(minutes=10),
    )
    comm.create_local_process_group(2) if hasattr(comm, "create_local_process_group") else None
    x = torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    found = {}
    for adapter in ("", "earth", "lora"):
        model = make_model(adapter)
        expected = gradients(copy.deepcopy(model), x)
        shard_model(model, torch.device("cpu"), block_lists=["blocks"], reshard_after_forward=True)
        found[adapter] = {"replica": expected, "sharded": gradients(model, x[2 * rank : 2 * rank + 2])}
        local = sum(each.to_local().numel() for each in model.parameters())
        found[adapter]["share"] = torch.tensor(local / sum(each.numel() for each in model.parameters()))
    if rank == 0:
        torch.save(found, f"{folder}/gradients.pth")
    dist.barrier()
    dist.destroy_process_group()
