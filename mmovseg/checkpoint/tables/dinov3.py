"""DINOv3 vision transformers (backbone only).

Ours is timm's `Eva` in its ``*_qkvb`` variants, which have query and value biases. Three things differ from the
published state dicts:

- The key third of an attention's bias is multiplied by zero there (`bias_mask`); timm has no such parameter, so it is
  set aside.
- `rope_embed.periods` is a buffer. Published files hold it rounded to bfloat16, which shifts every rotary angle; timm
  computes it in float32. It is copied, and `TimmEncoder(keep_rope_periods=True)` uses it.
- `mask_token`, and in satellite models `local_cls_norm`, serve the pretraining only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmovseg.checkpoint.rules import ASIDE, KeyTable, Rule, Shape, aside, constant, copies, copy, expand, split
from mmovseg.checkpoint.tables.contracts import dino_contract
from mmovseg.checkpoint.tables.dino import ENTRIES, NAMINGS, vit_block_rows, vit_stem_rows


@dataclass(frozen=True)
class Dinov3Dims:
    """Sizes of a DINOv3 ViT. `name` is timm's; heads have 64 channels."""

    name: str = "vit_large_patch16_dinov3_qkvb.sat493m"
    width: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 16
    storage: int = 4
    in_chans: int = 3
    satellite: bool = True


DINOV3_L16_SAT = Dinov3Dims()
ARCHITECTURES = (
    DINOV3_L16_SAT,
    Dinov3Dims("vit_large_patch16_dinov3_qkvb.lvd1689m", satellite=False),
    Dinov3Dims("vit_base_patch16_dinov3_qkvb.lvd1689m", width=768, depth=12, heads=12, satellite=False),
    Dinov3Dims("vit_small_patch16_dinov3_qkvb.lvd1689m", width=384, depth=12, heads=6, satellite=False),
)


def bias_mask(width: int) -> Tensor:
    """What DINOv3 multiplies the bias of query, key and value with: 1, 0, 1."""
    return torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])


def dinov3_rules(dims: Dinov3Dims, *, theirs: str = "", ours: str = "") -> list[Rule]:
    """Rules of one encoder."""
    width = dims.width
    same: dict[str, Shape] = {
        **vit_stem_rows(width, dims.patch, dims.in_chans),
        **expand(dims.depth, vit_block_rows(width)),
    }
    rules = copies(same, theirs=theirs, ours=ours)
    rules += [
        copy(theirs + "storage_tokens", ours + "reg_token", (1, dims.storage, width)),
        copy(theirs + "rope_embed.periods", ours + "rope.periods", (width // dims.heads // 4,)),
        aside(theirs + "mask_token", (1, width), fill=0.0),
    ]
    for n in range(dims.depth):
        block, bias = f"blocks.{n}.", f"blocks.{n}.attn.qkv.bias"
        thirds = {
            f"{ours}{block}attn.q_bias": width,
            f"{ASIDE}{theirs}{bias}.key": width,
            f"{ours}{block}attn.v_bias": width,
        }
        rules += [
            split(theirs + bias, thirds, (3 * width,), dim=0),
            constant(f"{theirs}{bias}_mask", lambda: bias_mask(width), (3 * width,)),
            copy(f"{theirs}{block}ls1.gamma", f"{ours}{block}gamma_1", (width,)),
            copy(f"{theirs}{block}ls2.gamma", f"{ours}{block}gamma_2", (width,)),
        ]
    if dims.satellite:
        rules += [
            aside(theirs + "local_cls_norm.weight", (width,), fill=1.0),
            aside(theirs + "local_cls_norm.bias", (width,), fill=0.0),
        ]
    return rules


def dinov3_table(dims: Dinov3Dims, *, naming: str = "") -> KeyTable:
    """One architecture under one naming."""
    return KeyTable(
        source="dinov3",
        architecture=dims.name,
        rules=tuple(dinov3_rules(dims, theirs=naming)),
        naming=naming,
        entries=ENTRIES,
        contract=dino_contract(256, satellite=dims.satellite),
        use=f"TimmEncoder(name='{dims.name.split('.')[0]}', keep_rope_periods=True, weights=<path>)",
    )


def dinov3_tables() -> tuple[KeyTable, ...]:
    """Every architecture under every naming."""
    return tuple(dinov3_table(dims, naming=naming) for naming in NAMINGS for dims in ARCHITECTURES)
