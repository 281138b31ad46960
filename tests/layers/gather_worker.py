"""What each of two processes does in the test of the collectives; a module that a new process can import."""

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy, normalize

from mmovseg.layers.distributed import all_gather_with_grad, global_mean_weight


def contrastive_loss(weight, images, texts):
    """InfoNCE over all pairs, of all processes."""
    first = all_gather_with_grad(normalize(images @ weight, dim=1))
    second = all_gather_with_grad(normalize(texts @ weight, dim=1))
    return cross_entropy(first @ second.T / 0.1, torch.arange(len(first)))


def pairs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, generator=generator), torch.randn(6, 3, generator=generator)


def work(rank, port, folder):
    """Store this process's loss, its gradient averaged as DDP does, and the shared denominator of 1 and 3 elements."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    weight = torch.eye(3, requires_grad=True)
    images, texts = (part[3 * rank : 3 * rank + 3] for part in pairs())
    loss = contrastive_loss(weight, images, texts)
    loss.backward()
    dist.all_reduce(weight.grad)
    shared = global_mean_weight(torch.tensor(1 + 2 * rank))
    torch.save((loss.detach(), weight.grad / 2, shared), f"{folder}/{rank}.pth")
    dist.destroy_process_group()
