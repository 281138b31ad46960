"""CoDe-MAE as released (github.com/scenarri/CoDeMAE): encoder with two patch embeddings, pyramid, and what trains them.

Ours is `mmovseg.projects.codemae`'s `CoDeMAE`; its encoder alone, `HiViT`, takes the converted file as well. Every
tensor has a partner of the same shape: patch merges and splits keep the release's order of neighbours, a packed
projection is query, key, value, and the fixed positions of the decoders are a buffer here, a frozen parameter there.
The decoders, the distillation and the contrast may each be missing as a whole, as in an ablation or an exported
encoder. The teacher is in neither file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmovseg.checkpoint.rules import KeyTable, Rule, Shape, copy
from mmovseg.checkpoint.tables.contracts import ospretrain_contract
from mmovseg.checkpoint.tables.hivit import HIVIT_B, HiViTDims, encoder_rows, transformer_rows, with_prefix

NAMINGS = ("", "module.")
# Where our model keeps the encoder.
ENCODER = "encoder."
_EMBEDDINGS = {"optical": "patch_embed_rgb", "sar": "patch_embed_sar"}
# Coarse to fine: the level's name in ours, its number in theirs, and how many sub-tokens make a token of the decoders.
_LEVELS = (("16", 0, 1), ("8", 1, 4), ("4", 2, 16))


@dataclass(frozen=True)
class CodemaeDims:
    """Sizes of a pretraining model.

    encoder: of the encoder. width: of the decoders. decoder_depth: blocks of each decoder. aux_depth: blocks of the
    auxiliary branch of the distillation. teacher: width of the teacher. own_out, cross_out: values that the decoders
    predict of a unit: its pixels, and its pixels in grey. image_size: side of the training images, pixels.
    """

    name: str = "codemae_base"
    encoder: HiViTDims = HIVIT_B
    width: int = 512
    decoder_depth: int = 8
    aux_depth: int = 2
    teacher: int = 1024
    own_out: int = 768
    cross_out: int = 256
    image_size: int = 224


CODEMAE_B = CodemaeDims()


def codemae_rules(dims: CodemaeDims, *, theirs: str = "") -> list[Rule]:
    """Rules of a whole pretraining model."""
    encoder, width, wide = dims.encoder, dims.width, dims.encoder.dim
    pairs: dict[str, dict[tuple[str, str], Shape]] = {
        "": {
            **encoder_rows(encoder, embeddings=_EMBEDDINGS, ours=ENCODER),
        },
        "pixel decoder": {
            **_fusion_rows(encoder.pyramid, width),
            ("decoder_pos_embed", "decoder_positions"): (1, encoder.units, width),
            **_decoder_rows("", "decoder.", width, dims.decoder_depth, dims.own_out),
        },
        "cross decoder": _decoder_rows("_cross", "cross.", width, dims.decoder_depth, dims.cross_out),
        "distillation": {
            **_same("norm", "distillation.norm", _norm(width)),
            **_same("lm_head", "distillation.head", _linear(dims.teacher, width)),
            **_blocks("cls_pt_layers.", "distillation.aux_blocks.", wide, dims.aux_depth),
            **_same("norm_cls", "distillation.aux_norm", _norm(wide)),
            **_same("lm_cls_head", "distillation.aux_head", _linear(dims.teacher, wide)),
        },
        "contrast": {
            **_contrast_rows("contrastive_loss.crossattn_rgb.cattn.", "contrast.optical.", width),
            **_contrast_rows("contrastive_loss.crossattn_sar.cattn.", "contrast.sar.", width),
        },
    }
    return [
        replace(copy(theirs + official, ours, shape), optional=group)
        for group, rows in pairs.items()
        for (official, ours), shape in rows.items()
    ]


def _fusion_rows(channels: int, width: int) -> dict[tuple[str, str], Shape]:
    rows: dict[tuple[str, str], Shape] = {}
    for level, number, parts in _LEVELS:
        rows |= _same(f"decoder_embed.{number}.0", f"fuse.{level}.norm", _norm(channels))
        rows |= _same(f"decoder_embed.{number}.1", f"fuse.{level}.proj", _linear(width // parts, channels))
    return rows


def _decoder_rows(suffix: str, ours: str, width: int, depth: int, out: int) -> dict[tuple[str, str], Shape]:
    return {
        (f"mask_token{suffix}", f"{ours}mask_token"): (1, 1, width),
        **_blocks(f"decoder_blocks{suffix}.", f"{ours}blocks.", width, depth),
        **_same(f"decoder_norm{suffix}", f"{ours}norm", _norm(width)),
        **_same(f"decoder_pred{suffix}", f"{ours}pred", _linear(out, width)),
    }


def _contrast_rows(theirs: str, ours: str, width: int) -> dict[tuple[str, str], Shape]:
    return {
        **_same(f"{theirs}n_q", f"{ours}norm_q", _norm(width)),
        **_same(f"{theirs}n_kv", f"{ours}norm_kv", _norm(width)),
        **_same(f"{theirs}q", f"{ours}q", _linear(width, width)),
        **_same(f"{theirs}kv", f"{ours}kv", _linear(2 * width, width)),
        **_same(f"{theirs}proj", f"{ours}proj", _linear(width, width)),
    }


def _blocks(theirs: str, ours: str, width: int, depth: int) -> dict[tuple[str, str], Shape]:
    return with_prefix(transformer_rows(width, depth), theirs=theirs, ours=ours)


def _same(theirs: str, ours: str, rows: Mapping[str, Shape]) -> dict[tuple[str, str], Shape]:
    return with_prefix(rows, theirs=f"{theirs}.", ours=f"{ours}.")


def _norm(width: int) -> dict[str, Shape]:
    return {"weight": (width,), "bias": (width,)}


def _linear(outputs: int, inputs: int) -> dict[str, Shape]:
    return {"weight": (outputs, inputs), "bias": (outputs,)}


def codemae_table(dims: CodemaeDims, *, naming: str = "") -> KeyTable:
    """One size under one naming."""
    return KeyTable(
        source="codemae",
        architecture=dims.name,
        rules=tuple(codemae_rules(dims, theirs=naming)),
        naming=naming,
        entries=("model",),
        contract=ospretrain_contract(dims.image_size),
        use="HiViT(weights=<path>), the encoder alone; or projects/CoDeMAE/configs/codemae_b.py with "
        "train.init_checkpoint=<path>",
    )


def codemae_tables() -> tuple[KeyTable, ...]:
    """The released size under every naming."""
    return tuple(codemae_table(CODEMAE_B, naming=naming) for naming in NAMINGS)
