"""open_clip's contrastive loss, told which pairs of a batch share their text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from mmovseg.layers.distributed import world_size


def text_keys(texts: Sequence[str]) -> Tensor:
    """Return (N,) int64 numbers that are equal where the texts are, but for case and spaces.

    Case and spaces do not reach the model: its tokenizer lowers the one and joins the other.
    """
    digests = (hashlib.sha256(" ".join(text.lower().split()).encode()).digest() for text in texts)
    return torch.tensor([int.from_bytes(digest[:8], "big", signed=True) for digest in digests], dtype=torch.int64)


class TextAwareClipLoss(ClipLoss):
    """CLIP's loss whose targets are shared equally by all pairs of the batch with the same text.

    Captions from templates repeat. With one-hot targets a model is then asked to tell equal texts apart, which it
    cannot; the gradient that asks for it is noise. With m equal texts each of them has the target 1/m. Where all texts
    differ this is open_clip's loss. Our design; the paper does not say how it treats repeated captions.
    """

    def forward_with_keys(self, image_features: Tensor, text_features: Tensor, scale: Tensor, keys: Tensor) -> Tensor:
        """Return the 0-d loss of this process.

        Args:
            image_features: (N, D) unit vectors.
            text_features: (N, D) unit vectors, row i of both from one pair.
            scale: 0-d, the inverse temperature.
            keys: (N,) from `text_keys`.
        """
        per_image, per_text = self.get_logits(image_features, text_features, scale)
        keys = keys.to(image_features.device)
        all_keys = keys
        if world_size() > 1:
            parts = [torch.empty_like(keys) for _ in range(world_size())]
            dist.all_gather(parts, keys)
            all_keys = torch.cat(parts)
        rows = keys if len(per_image) == len(keys) else all_keys  # with local_loss the rows are those of this process
        same = (rows[:, None] == all_keys[None, :]).to(per_image.dtype)
        targets = same / same.sum(dim=1, keepdim=True)
        return (F.cross_entropy(per_image, targets) + F.cross_entropy(per_text, targets)) / 2
