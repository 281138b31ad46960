"""open_clip's contrastive loss, told which pairs of a batch have the same text."""

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
    """CLIP's loss in which a pair with the same text as another one is not its negative.

    Captions from templates repeat. CLIP's loss then counts an image that fits a text among the negatives of that text.
    Here each pair competes with those of other texts alone; where all texts differ this is open_clip's loss. Targets
    shared among equal texts would change nothing: equal texts have equal embeddings, and a cross-entropy is linear in
    its targets. Our design; the paper does not say how it treats repeated captions.
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
        labels = self.get_ground_truth(image_features.device, len(per_image))  # the column of the pair itself
        same = all_keys[labels][:, None] == all_keys[None, :]
        twins = same.scatter(1, labels[:, None], False)
        losses = [F.cross_entropy(logits.masked_fill(twins, float("-inf")), labels) for logits in (per_image, per_text)]
        return (losses[0] + losses[1]) / 2
