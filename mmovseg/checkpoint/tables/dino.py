"""DINO v1 vision transformers, and checkpoints of the same kind such as GSNet's remote-sensing DINO (``RSIB.pth``).

Ours is timm's `VisionTransformer`, which has DINO's names. Sources: DINO's released state dicts; training checkpoints
hold ``teacher`` with the backbone and the projection head of self-distillation.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmovseg.checkpoint.rules import KeyTable, Rule, Shape, aside, copies, expand
from mmovseg.checkpoint.tables.contracts import dino_contract

# What DistributedDataParallel and DINO's multi-crop wrapper put in front of a name.
NAMINGS = ("", "backbone.", "module.", "module.backbone.", "backbone.module.")
ENTRIES = ("teacher", "model", "state_dict")


@dataclass(frozen=True)
class DinoDims:
    """Sizes of a DINO v1 ViT. `name` is timm's; `grid` counts patches along one side of the position table."""

    name: str = "vit_base_patch8_224.dino"
    width: int = 768
    depth: int = 12
    patch: int = 8
    grid: int = 28
    in_chans: int = 3


ARCHITECTURES = (
    DinoDims(),
    DinoDims("vit_base_patch16_224.dino", patch=16, grid=14),
    DinoDims("vit_small_patch8_224.dino", width=384),
    DinoDims("vit_small_patch16_224.dino", width=384, patch=16, grid=14),
)


def vit_block_rows(width: int) -> dict[str, Shape]:
    """Tensors of one block that DINO v1, DINOv3 and timm name alike."""
    return {
        "blocks.{n}.norm1.weight": (width,),
        "blocks.{n}.norm1.bias": (width,),
        "blocks.{n}.attn.qkv.weight": (3 * width, width),
        "blocks.{n}.attn.proj.weight": (width, width),
        "blocks.{n}.attn.proj.bias": (width,),
        "blocks.{n}.norm2.weight": (width,),
        "blocks.{n}.norm2.bias": (width,),
        "blocks.{n}.mlp.fc1.weight": (4 * width, width),
        "blocks.{n}.mlp.fc1.bias": (4 * width,),
        "blocks.{n}.mlp.fc2.weight": (width, 4 * width),
        "blocks.{n}.mlp.fc2.bias": (width,),
    }


def vit_stem_rows(width: int, patch: int, in_chans: int) -> dict[str, Shape]:
    """Tensors outside the blocks that DINO v1, DINOv3 and timm name alike."""
    return {
        "cls_token": (1, 1, width),
        "patch_embed.proj.weight": (width, in_chans, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }


def dino_rules(dims: DinoDims, *, theirs: str = "", ours: str = "") -> list[Rule]:
    """Rules of one encoder."""
    block: dict[str, Shape] = {**vit_block_rows(dims.width), "blocks.{n}.attn.qkv.bias": (3 * dims.width,)}
    rows: dict[str, Shape] = {
        **vit_stem_rows(dims.width, dims.patch, dims.in_chans),
        "pos_embed": (1, dims.grid**2 + 1, dims.width),
        **expand(dims.depth, block),
    }
    return copies(rows, theirs=theirs, ours=ours)


def dino_table(dims: DinoDims, *, naming: str = "") -> KeyTable:
    """One architecture under one naming, with or without the projection head, whose sizes a training may choose."""
    head = naming.replace("backbone.", "") + "head."
    rows: dict[str, Shape] = {
        "mlp.0.weight": (None, dims.width),
        "mlp.0.bias": (None,),
        "mlp.2.weight": (None, None),
        "mlp.2.bias": (None,),
        "mlp.4.weight": (None, None),
        "mlp.4.bias": (None,),
        "last_layer.weight_g": (None, 1),
        "last_layer.weight_v": (None, None),
    }
    projection = [aside(head + name, shape, optional="projection head") for name, shape in rows.items()]
    return KeyTable(
        source="dino",
        architecture=dims.name,
        rules=(*dino_rules(dims, theirs=naming), *projection),
        naming=naming,
        entries=ENTRIES,
        contract=dino_contract(dims.grid * dims.patch),
        use=f"TimmEncoder(name='{dims.name}', weights=<path>)",
    )


def dino_tables() -> tuple[KeyTable, ...]:
    """Every architecture of DINO v1's ViTs under every naming."""
    return tuple(dino_table(dims, naming=naming) for naming in NAMINGS for dims in ARCHITECTURES)
