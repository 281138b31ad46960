"""Write weights: atomic, safetensors only, the same bytes for the same content."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmovseg.atomic import atomic_write
from mmovseg.errors import UserError


def save_weights(
    model_or_state: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write all tensors (frozen ones and buffers too) to a safetensors file.

    The same tensors and metadata give the same bytes. A half-written file is never left behind.

    Args:
        model_or_state: a module or its state dict.
        path: ends in ``.safetensors``.
        metadata: facts kept in the file's header.
        dtype: floating-point tensors are stored in this type, for example `torch.float16`; None = as they are.

    Raises:
        UserError: the suffix is another one, or the folder cannot be written to.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"weights are saved as .safetensors, but the path is '{path}'")
    state = model_or_state.state_dict() if isinstance(model_or_state, nn.Module) else model_or_state
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stored = tensor.detach().to("cpu", dtype if tensor.is_floating_point() and dtype else tensor.dtype).contiguous()
        if stored.numel() and stored.untyped_storage().data_ptr() in seen:
            stored = stored.clone()  # tied weights: the format refuses shared memory
        seen.add(stored.untyped_storage().data_ptr())
        tensors[name] = stored
    facts = {"format": "pt", **(metadata or {})}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=facts)
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Rewrite the header's metadata in sorted order: safetensors writes it in a random one."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        # The same content has the same length; padding with spaces is part of the format.
        assert len(text) <= length, "the header grew"
        file.seek(8)
        file.write(text.ljust(length))
