"""Small foreign checkpoints with random weights, written from the key tables that convert them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mmovseg.checkpoint.rules import KeyTable
from mmovseg.checkpoint.tables.clip import SEGMENTATION_PREFIX, ClipDims, openai_clip_table, segmentation_clip_table
from mmovseg.checkpoint.tables.codemae import CodemaeDims, codemae_table
from mmovseg.checkpoint.tables.dino import DinoDims, dino_table
from mmovseg.checkpoint.tables.dinov3 import Dinov3Dims, dinov3_table
from mmovseg.checkpoint.tables.dinov3_hf import dinov3_hf_table
from mmovseg.checkpoint.tables.hivit import HiViTDims
from mmovseg.checkpoint.tables.itpn import ItpnDims, itpn_table
from mmovseg.checkpoint.tables.mmovseg import ReleasedDims, mmovseg_table

TINY_CLIP = ClipDims(
    "tiny", embed=16, width=64, depth=2, patch=16, grid=4, text_width=64, text_depth=2, context=16, words=520
)
TINY_DINO = DinoDims("tiny", width=48, depth=3, patch=8, grid=7)
TINY_DINOV3 = Dinov3Dims("tiny", width=64, depth=3, heads=1)
TINY_HIVIT = HiViTDims(stem=8, depths=(1, 2, 3), patch=2, units=16, pyramid=16)
TINY_CODEMAE = CodemaeDims("tiny", encoder=TINY_HIVIT, width=48, decoder_depth=1, teacher=40, own_out=192, cross_out=64)
TINY_ITPN = ItpnDims("tiny", encoder=TINY_HIVIT, image_size=32)
_TINY_HEAD = {
    "taps": (1, 2, 3),
    "hidden": 16,
    "projected_guidance": 8,
    "guidance": (12, 6),
    "guidance_out": (4, 2),
    "decoder": (16, 8),
    "grid": 8,
    "window": 4,
}
TINY_RELEASED_B16 = ReleasedDims(clip=TINY_CLIP, dense=TINY_DINO, **_TINY_HEAD)  # type: ignore[arg-type]
TINY_RELEASED_L14 = ReleasedDims(
    clip=TINY_CLIP,
    dense=TINY_DINOV3,
    projections=(("up", 2), ("up", 4), ("conv", 1)),
    **_TINY_HEAD,  # type: ignore[arg-type]
)


def tiny_table(source: str, *, naming: str = "") -> KeyTable:
    """Return the table of a source for a small architecture; `naming` as in `KeyTable`, for encoders."""
    if source.startswith("mmovseg_"):
        return mmovseg_table(TINY_RELEASED_B16 if source.endswith("b16") else TINY_RELEASED_L14, source=source)
    if source == "dino":
        return dino_table(TINY_DINO, naming=naming)
    if source == "dinov3":
        return dinov3_table(TINY_DINOV3, naming=naming)
    if source == "dinov3_hf":
        return dinov3_hf_table(TINY_DINOV3)
    if source == "codemae":
        return codemae_table(TINY_CODEMAE, naming=naming)
    if source == "itpn":
        return itpn_table(TINY_ITPN, naming=naming)
    if source == "openai_clip":
        return openai_clip_table(TINY_CLIP)
    outside = ("sem_seg_head.predictor.transformer.*", "upsample1.*")
    return segmentation_clip_table(source, TINY_CLIP, naming=SEGMENTATION_PREFIX, outside=outside)


def fake_state(
    table: KeyTable, *, seed: int = 0, optional: Iterable[str] = (), dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Return a state dict with official names: random tensors, true constants; sizes that are free are 5.

    Args:
        table: whose names and shapes.
        seed: of the random numbers.
        optional: which optional groups of the table to write.
        dtype: of everything but the constants.
    """
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for rule in table.rules:
        if rule.optional and rule.optional not in optional:
            continue
        for name, shape in rule.theirs.items():
            if rule.make is not None:
                state[name] = rule.make()
            else:
                sizes = [5 if size is None else size for size in shape]
                state[name] = torch.randn(sizes, generator=generator).to(dtype)
    return state
