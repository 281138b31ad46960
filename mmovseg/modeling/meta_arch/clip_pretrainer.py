"""Contrastive image-text training of a CLIP from open_clip (used for the XS model; open_clip's own loss)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import ModelInput, Prediction
from mmovseg.layers.conv import resize
from mmovseg.layers.distributed import world_size
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.meta_arch.batching import answer_alike, batch_view, shared_vocabulary
from mmovseg.modeling.open_clip_models import limit_logit_scale
from mmovseg.modeling.text.tokenizer import tokenize


class CLIPPretrainer(nn.Module):
    """Train both towers on captions; at inference, segment zero-shot by the cosine of patches and class names.

    Args:
        clip: towers, with finetune="full".
        norm: pixel constants of the optical input, 0..255 scale.
    """

    def __init__(self, *, clip: OpenCLIPEncoder, norm: PixelNorm, input_contract: InputContract | None = None) -> None:
        super().__init__()
        self.clip, self.norm = clip, norm
        self.clip.model.logit_scale.requires_grad_(True)
        self.input_contract = input_contract.to_dict() if input_contract is not None else None
        rank = dist.get_rank() if world_size() > 1 else 0
        self.loss = ClipLoss(
            local_loss=True, gather_with_grad=True, cache_labels=True, rank=rank, world_size=world_size()
        )

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[Prediction]:
        """Train on ``image`` and ``caption``, or predict.

        Returns:
            ``{"loss_contrastive": 0-d}`` in training; else per image ``sem_seg`` (K, height, width), cosines.
        """
        if not self.training:
            text = self.clip.encode_vocabulary(shared_vocabulary(batched_inputs))
            return answer_alike(
                batched_inputs, partial(self._predict, text=text), keys=("image",), multiple=self.clip.patch_size
            )
        images = self._images(batched_inputs)
        tokens = tokenize(self.clip.tokenizer, [item["caption"] for item in batched_inputs]).to(images.device)
        limit_logit_scale(self.clip.model.logit_scale)
        image, text, scale = self.clip.model(images, tokens)
        return {"loss_contrastive": self.loss(image, text, scale)}

    def _images(self, inputs: Sequence[ModelInput]) -> Tensor:
        view = batch_view(inputs, "image", "valid", self.norm, self.clip.patch_size)
        assert view is not None
        return view.x

    def _predict(self, inputs: Sequence[ModelInput], *, text: Tensor) -> list[Prediction]:
        images = self._images(inputs)
        dense = torch.nn.functional.normalize(self.clip.encode_image(images)["dense"], dim=1)
        cosines = torch.einsum("ndhw,kd->nkhw", dense, text)
        return [_to_prediction(maps, item, images.shape) for maps, item in zip(cosines, inputs, strict=True)]


def _to_prediction(maps: Tensor, item: ModelInput, padded: torch.Size) -> Prediction:
    height, width = item["image"].shape[-2:]
    maps = resize(maps[None].float(), (padded[-2], padded[-1]))[..., :height, :width]
    return {"sem_seg": resize(maps, (item.get("height", height), item.get("width", width)))[0]}
