"""DINOv3 vision transformers under the names that Hugging Face gives them (``model.safetensors`` of its hub).

Ours is the timm model of source ``dinov3``. Query, key and value lie apart there, and the key has no bias; the rotary
periods are computed, as timm computes them, so no file holds them. `mask_token` serves the pretraining only.
Source: transformers' `DINOv3ViTModel`, its state dict.
"""

from __future__ import annotations

from mmovseg.checkpoint.rules import KeyTable, Rule, Shape, aside, copy, pack
from mmovseg.checkpoint.tables.contracts import dino_contract
from mmovseg.checkpoint.tables.dinov3 import ARCHITECTURES, Dinov3Dims


def dinov3_hf_rules(dims: Dinov3Dims) -> list[Rule]:
    """Rules of one encoder."""
    width = dims.width
    rules = [
        copy("embeddings.cls_token", "cls_token", (1, 1, width)),
        copy("embeddings.register_tokens", "reg_token", (1, dims.storage, width)),
        aside("embeddings.mask_token", (1, 1, width), fill=0.0),
        copy(
            "embeddings.patch_embeddings.weight", "patch_embed.proj.weight", (width, dims.in_chans, *(dims.patch,) * 2)
        ),
        copy("embeddings.patch_embeddings.bias", "patch_embed.proj.bias", (width,)),
        copy("norm.weight", "norm.weight", (width,)),
        copy("norm.bias", "norm.bias", (width,)),
    ]
    for n in range(dims.depth):
        rules += _block_rules(width, theirs=f"layer.{n}.", ours=f"blocks.{n}.")
    return rules


def _block_rules(width: int, *, theirs: str, ours: str) -> list[Rule]:
    rows: dict[tuple[str, str], Shape] = {
        ("norm1.weight", "norm1.weight"): (width,),
        ("norm1.bias", "norm1.bias"): (width,),
        ("attention.q_proj.bias", "attn.q_bias"): (width,),
        ("attention.v_proj.bias", "attn.v_bias"): (width,),
        ("attention.o_proj.weight", "attn.proj.weight"): (width, width),
        ("attention.o_proj.bias", "attn.proj.bias"): (width,),
        ("layer_scale1.lambda1", "gamma_1"): (width,),
        ("norm2.weight", "norm2.weight"): (width,),
        ("norm2.bias", "norm2.bias"): (width,),
        ("mlp.up_proj.weight", "mlp.fc1.weight"): (4 * width, width),
        ("mlp.up_proj.bias", "mlp.fc1.bias"): (4 * width,),
        ("mlp.down_proj.weight", "mlp.fc2.weight"): (width, 4 * width),
        ("mlp.down_proj.bias", "mlp.fc2.bias"): (width,),
        ("layer_scale2.lambda1", "gamma_2"): (width,),
    }
    packed = pack(
        [f"{theirs}attention.{letter}_proj.weight" for letter in "qkv"], f"{ours}attn.qkv.weight", (width, width)
    )
    return [packed, *(copy(theirs + official, ours + own, shape) for (official, own), shape in rows.items())]


def dinov3_hf_table(dims: Dinov3Dims) -> KeyTable:
    """One architecture."""
    return KeyTable(
        source="dinov3_hf",
        architecture=dims.name,
        rules=tuple(dinov3_hf_rules(dims)),
        entries=("model", "state_dict"),
        contract=dino_contract(256, satellite=dims.satellite),
        use=f"TimmEncoder(name='{dims.name.split('.')[0]}', weights=<path>)",
    )


def dinov3_hf_tables() -> tuple[KeyTable, ...]:
    """Every architecture. The satellite and the web model of one size look alike; the satellite one comes first."""
    return tuple(dinov3_hf_table(dims) for dims in ARCHITECTURES)
