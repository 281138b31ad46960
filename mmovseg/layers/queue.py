"""A memory of embeddings of past batches, for contrastive losses with more negatives than a batch holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """First-in-first-out memory; part of the state dict, so that a resumed run has the same negatives.

    Args:
        size: embeddings kept at each level.
        levels: number of lists that are filled together.
        width: C.
    """

    entries: Tensor
    count: Tensor
    start: Tensor

    def __init__(self, size: int, *, levels: int, width: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(levels, size, width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("start", torch.zeros((), dtype=torch.int64))

    def keys(self, level: int) -> Tensor:
        """Return what a level holds: (n, C), n growing to `size`."""
        return self.entries[level, : int(self.count)]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Add (levels, n, C); the oldest entries make room. Of more than `size` rows the last are kept."""
        size = self.entries.shape[1]
        rows = rows[:, -size:].to(self.entries)
        places = (int(self.start) + torch.arange(rows.shape[1], device=rows.device)) % size
        self.entries[:, places] = rows
        self.start.copy_((self.start + rows.shape[1]) % size)
        self.count.copy_((self.count + rows.shape[1]).clamp(max=size))
