"""CLIP with a ViT tower: OpenAI's state dicts, and the CLIP inside GSNet, CAT-Seg and MM-OVSeg checkpoints.

Ours is open_clip's `CLIP`, which has OpenAI's names. The segmentation models keep the query, key and value weights of
an attention apart (and its bias in one piece); open_clip packs them.
Sources: the state dicts of OpenAI's CLIP and of CAT-Seg (github.com/cvlab-kaist/CAT-Seg); GSNet has CAT-Seg's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from mmovseg.checkpoint.rules import KeyTable, Rule, Shape, constant, copies, expand, pack
from mmovseg.checkpoint.tables.contracts import clip_contract

# Where segmentation models keep their CLIP.
SEGMENTATION_PREFIX = "sem_seg_head.predictor.clip_model."
# What else a whole checkpoint of them holds: the cost aggregator and the projections of guidance features.
_CATSEG_REST = ("sem_seg_head.predictor.transformer.*", "upsample1.*", "upsample2.*")
_GSNET_REST = (*_CATSEG_REST, "dino_model.*", "dino_decod_proj1.*", "dino_decod_proj2.*", "dino_down_sample.*")


@dataclass(frozen=True)
class ClipDims:
    """Sizes of a CLIP. `name` is open_clip's; `grid` counts patches along one side of the position table."""

    name: str = "ViT-B-16-quickgelu"
    embed: int = 512
    width: int = 768
    depth: int = 12
    patch: int = 16
    grid: int = 14
    text_width: int = 512
    text_depth: int = 12
    context: int = 77
    words: int = 49408


CLIP_B32 = ClipDims("ViT-B-32-quickgelu", patch=32, grid=7)
CLIP_B16 = ClipDims()
CLIP_L14 = ClipDims("ViT-L-14-quickgelu", embed=768, width=1024, depth=24, patch=14, grid=16, text_width=768)
CLIP_L14_336 = ClipDims("ViT-L-14-336-quickgelu", embed=768, width=1024, depth=24, patch=14, grid=24, text_width=768)


def clip_rules(dims: ClipDims, *, theirs: str = "", ours: str = "", packed: bool = True) -> list[Rule]:
    """Rules of one CLIP; `packed` says whether their attention weights are in one piece."""
    width, text = dims.width, dims.text_width
    rows: dict[str, Shape] = {
        "positional_embedding": (dims.context, text),
        "text_projection": (text, dims.embed),
        "logit_scale": (),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (dims.grid**2 + 1, width),
        "visual.proj": (width, dims.embed),
        "visual.conv1.weight": (width, 3, dims.patch, dims.patch),
        "visual.ln_pre.weight": (width,),
        "visual.ln_pre.bias": (width,),
        "visual.ln_post.weight": (width,),
        "visual.ln_post.bias": (width,),
        "token_embedding.weight": (dims.words, text),
        "ln_final.weight": (text,),
        "ln_final.bias": (text,),
    }
    rules = copies(rows, theirs=theirs, ours=ours)
    for blocks, size, depth in (
        ("visual.transformer.resblocks.", width, dims.depth),
        ("transformer.resblocks.", text, dims.text_depth),
    ):
        rules += _block_rules(size, depth, theirs=theirs + blocks, ours=ours + blocks, packed=packed)
    return rules


def _block_rules(width: int, depth: int, *, theirs: str, ours: str, packed: bool) -> list[Rule]:
    rows: dict[str, Shape] = {
        "{n}.attn.in_proj_bias": (3 * width,),
        "{n}.attn.out_proj.weight": (width, width),
        "{n}.attn.out_proj.bias": (width,),
        "{n}.ln_1.weight": (width,),
        "{n}.ln_1.bias": (width,),
        "{n}.mlp.c_fc.weight": (4 * width, width),
        "{n}.mlp.c_fc.bias": (4 * width,),
        "{n}.mlp.c_proj.weight": (width, 4 * width),
        "{n}.mlp.c_proj.bias": (width,),
        "{n}.ln_2.weight": (width,),
        "{n}.ln_2.bias": (width,),
    }
    if packed:
        return copies(expand(depth, {**rows, "{n}.attn.in_proj_weight": (3 * width, width)}), theirs=theirs, ours=ours)
    packs = [
        pack(
            [f"{theirs}{n}.attn.{part}_proj_weight" for part in "qkv"],
            f"{ours}{n}.attn.in_proj_weight",
            (width, width),
        )
        for n in range(depth)
    ]
    return copies(expand(depth, rows), theirs=theirs, ours=ours) + packs


def openai_clip_table(dims: ClipDims) -> KeyTable:
    """OpenAI's own state dicts; also those of other open_clip trainings, which have the same names."""
    # Three facts that OpenAI's archives hold as tensors; a state dict of the built model does not have them.
    facts = {"input_resolution": dims.grid * dims.patch, "context_length": dims.context, "vocab_size": dims.words}
    scalars = [
        constant(name, lambda value=value: torch.tensor(value), (), optional="facts of the archive")  # type: ignore[misc]
        for name, value in facts.items()
    ]
    return KeyTable(
        source="openai_clip",
        architecture=dims.name,
        rules=(*clip_rules(dims), *scalars),
        entries=("state_dict", "model"),
        contract=clip_contract(dims.grid * dims.patch),
        use=_use(dims),
    )


def segmentation_clip_table(source: str, dims: ClipDims, *, naming: str, outside: Iterable[str]) -> KeyTable:
    """The CLIP of a segmentation model, with its full prefix or without."""
    return KeyTable(
        source=source,
        architecture=dims.name,
        rules=tuple(clip_rules(dims, theirs=naming, packed=False)),
        naming=naming,
        outside=tuple(outside) if naming else (),
        entries=("model",),
        contract=clip_contract(dims.grid * dims.patch),
        use=_use(dims),
    )


def _use(dims: ClipDims) -> str:
    return f"OpenCLIPEncoder(name='{dims.name}', weights=<path>)"


def openai_clip_tables() -> tuple[KeyTable, ...]:
    """Every architecture of OpenAI's ViTs."""
    return tuple(openai_clip_table(dims) for dims in (CLIP_B16, CLIP_B32, CLIP_L14, CLIP_L14_336))


def _segmentation_tables(source: str, outside: Iterable[str]) -> tuple[KeyTable, ...]:
    return tuple(
        segmentation_clip_table(source, dims, naming=naming, outside=outside)
        for naming in (SEGMENTATION_PREFIX, "")
        for dims in (CLIP_B16, CLIP_L14_336)
    )


def gsnet_clip_tables() -> tuple[KeyTable, ...]:
    """The CLIP of GSNet, ViT-B/16 or ViT-L/14 at 336 pixels."""
    return _segmentation_tables("gsnet_clip", _GSNET_REST)


def catseg_clip_tables() -> tuple[KeyTable, ...]:
    """The CLIP of CAT-Seg, ViT-B/16 or ViT-L/14 at 336 pixels."""
    return _segmentation_tables("catseg_clip", _CATSEG_REST)
