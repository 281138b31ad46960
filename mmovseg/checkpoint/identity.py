"""Tell whether two frozen encoders say the same of the same pixels, by one number."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor, nn


def teacher_sha256(teacher: nn.Module, norm: nn.Module, view: str) -> str:
    """Return a digest of all that decides what an encoder answers: weights, kinds of layers, normalisation, its view.

    By content, not by name: the same weights from another file have the same digest. Which blocks are read, and the
    device, do not enter.

    Args:
        teacher: the encoder.
        norm: of its pixels; its constants and `clip` enter.
        view: key of the model input that it reads, ``image_clear`` or ``image``.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(view.encode())
    for part, module in (("encoder", teacher), ("norm", norm)):
        kinds = [(name, type(child).__name__, _clip(child)) for name, child in sorted(module.named_modules())]
        digest.update(json.dumps([part, kinds]).encode())
        # Buffers that are not stored with the weights, such as rotary periods and pixel statistics, count as well.
        tensors: dict[str, Tensor] = {**dict(module.named_buffers()), **module.state_dict()}
        for name, tensor in sorted(tensors.items()):
            plain = tensor.detach().to("cpu").contiguous()
            digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _clip(module: nn.Module) -> list[float] | None:
    clip = getattr(module, "clip", None)
    return None if clip is None else [float(value) for value in clip]
