"""Cut one part out of a checkpoint, for example the SAR encoder out of an alignment run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from mmovseg.checkpoint.load import file_sha256, read_metadata, read_state
from mmovseg.checkpoint.save import save_weights
from mmovseg.errors import UserError
from mmovseg.weights import resolve


def export_part(
    source: str | Path,
    target: str | Path,
    *,
    part: str = "",
    half: bool = False,
    facts: Mapping[str, str] | None = None,
) -> int:
    """Write the tensors below `part` under their own names, with the source's metadata.

    Args:
        source: checkpoint with the whole model.
        target: ``.safetensors`` to write.
        part: module name, for example ``student.model``; "" takes everything.
        half: store in float16, half the size; loading casts back.
        facts: further metadata.

    Returns:
        The number of tensors written.

    Raises:
        UserError: unreadable source, nothing below `part`, or the source would be written over.
    """
    original = resolve(source)
    if Path(target).exists() and original.exists() and original.samefile(target):
        raise UserError(f"'{target}' would overwrite the checkpoint that '{part or 'all'}' is taken from")
    state, _ = read_state(source)
    prefix = f"{part}." if part else ""
    chosen = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not chosen:
        tops = sorted({".".join(name.split(".")[:2]) for name in state})
        raise UserError(f"checkpoint '{source}' has no part '{part}'; it has: {', '.join(tops[:8])}")
    metadata = {
        **read_metadata(source),
        "exported_part": part or "all",
        "source_sha256": file_sha256(source),
        **(facts or {}),
    }
    save_weights(chosen, target, metadata=metadata, dtype=torch.float16 if half else None)
    return len(chosen)
