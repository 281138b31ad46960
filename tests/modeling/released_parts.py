"""What the authors' own modules, run once at small width, were given and gave; and our modules of that size."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec

from mmovseg.checkpoint.tables.clip import SEGMENTATION_PREFIX, ClipDims
from mmovseg.checkpoint.tables.dino import DinoDims
from mmovseg.checkpoint.tables.mmovseg import ReleasedDims, mmovseg_table
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.fusion import CostAggregationHead
from mmovseg.modeling.meta_arch import MMOVSeg
from mmovseg.testing.realdata import realdata_root

WORDS = 515
HEAD_PREFIX = "sem_seg_head.predictor.transformer."
SIZES = dict(hidden=16, projected_guidance=8, guidance=(12, 6), guidance_out=(4, 2), decoder=(32, 16))
TAPS = (4, 8, 9)  # of the whole small model
CLIP_MEAN, CLIP_STD = (122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.3231630)


@cache
def arrays() -> dict[str, np.ndarray]:
    """Everything that was stored, by name; skips the test where the folder of real samples is absent."""
    folder = realdata_root()
    path = folder / "parity" / "mmovseg_released_tiny.npz" if folder is not None else None
    if path is None or not path.is_file():
        pytest.skip("the outputs of the authors' modules are not here")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def tensors(prefix: str) -> dict[str, torch.Tensor]:
    """The stored arrays below `prefix`, without it."""
    return {
        name.removeprefix(prefix): torch.from_numpy(value.copy())
        for name, value in arrays().items()
        if name.startswith(prefix)
    }


def convert(dims: ReleasedDims, theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename with the key table of checkpoints whatever part of a model `theirs` is; every tensor must be used."""
    rules = [rule for rule in mmovseg_table(dims).rules if all(name in theirs for name in rule.theirs)]
    assert {name for rule in rules for name in rule.theirs} == set(theirs)
    for rule in rules:
        if rule.make is not None:
            assert all(torch.equal(theirs[name], rule.make()) for name in rule.theirs)
    return {name: tensor for rule in rules for name, tensor in rule.convert(theirs).items()}


def with_all_words(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Fill the token table up to the least that our tokenizer takes; the stored tokens never reach the new rows."""
    name = prefix + "token_embedding.weight"
    table = state[name]
    return state | {name: torch.cat([table, table.new_zeros(WORDS - len(table), table.shape[1])])}


def load(module: torch.nn.Module, state: dict[str, torch.Tensor], prefix: str, *, missing: tuple[str, ...] = ()):
    """Load what lies below `prefix`; only keys that start with one of `missing` may be absent."""
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    report = module.load_state_dict(own, strict=False)
    assert not report.unexpected_keys
    assert [name for name in report.missing_keys if not name.startswith(missing or ("-",))] == []
    return module


def small_head(**changes) -> CostAggregationHead:
    """The head of `head/*`; projections of encoders, which lie outside of it in the release, have any size."""
    dense = {f"block{tap}": ShapeSpec(channels=3, stride=8) for tap in (1, 2, 3)}
    clip = {f"block{tap}": ShapeSpec(channels=3, stride=16) for tap in (1, 2)}
    options = dict(
        channels=16,
        context_channels=8,
        level_channels=(12, 6),
        guidance_channels=(4, 2),
        decoder_channels=(32, 16),
        num_heads=2,
        window=4,
        class_padding=32,
    )
    return CostAggregationHead(dense, clip, embed_dim=16, **(options | changes))


HEAD_DIMS = ReleasedDims(clip=ClipDims(embed=16), grid=8, window=4, **SIZES)


def load_head(**changes) -> CostAggregationHead:
    """`small_head` with the stored weights."""
    state = convert(HEAD_DIMS, {HEAD_PREFIX + name: value for name, value in tensors("sd/head/").items()})
    return load(small_head(**changes), state, "head.", missing=("dense.", "clip_adapters."))


def load_dino(**changes) -> TimmEncoder:
    """The encoder of `dino56` and `dino96`, all four blocks tapped."""
    options = dict(image_size=56, taps=(1, 2, 3, 4), position_resize="dino_v1")
    encoder = TimmEncoder(
        "vit_small_patch8_224", model_args=dict(embed_dim=24, depth=4, num_heads=3), **(options | changes)
    )
    dims = ReleasedDims(dense=DinoDims(width=24, depth=4, grid=7))
    state = convert(dims, {"dino_model." + name: value for name, value in tensors("sd/dino/").items()})
    return load(encoder, state, "optical_encoder.")


def load_clip() -> OpenCLIPEncoder:
    """The encoder of `clip`, `clip32` and `clip48`, its second block (index 1) tapped."""
    clip = OpenCLIPEncoder(
        architecture=dict(
            embed_dim=16,
            quick_gelu=True,
            vision_cfg=dict(image_size=32, patch_size=8, width=128, layers=3),
            text_cfg=dict(context_length=12, vocab_size=WORDS, width=64, heads=2, layers=2),
        ),
        taps=(2,),
        dense="value_cls",
        templates="released",
    )
    dims = ReleasedDims(
        clip=ClipDims(
            "small", embed=16, width=128, depth=3, patch=8, grid=4, text_width=64, text_depth=2, context=12, words=50
        )
    )
    state = convert(dims, {SEGMENTATION_PREFIX + name: value for name, value in tensors("sd/clip/").items()})
    return load(clip, with_all_words(state, "clip.model."), "clip.").eval()


def model_dims() -> ReleasedDims:
    return ReleasedDims(
        clip=ClipDims("small", embed=16, width=64, depth=9, grid=4, text_width=64, text_depth=6, words=100),
        dense=DinoDims(width=48, depth=9),
        taps=TAPS,
        **SIZES,
    )


def small_model(
    *,
    depth: int = 3,
    text_layers: int = 1,
    taps: tuple[int, ...] = (1, 2, 3),
    clip_taps: tuple[int, ...] = (1, 2),
    dense_size: int = 56,
    head: dict | None = None,
    **changes,
) -> MMOVSeg:
    """The released model of ViT-B/16 in small: the same parts and options, 16 px of stride, random weights.

    Args:
        depth: blocks of every vision transformer; `taps` and `clip_taps` count within them.
        text_layers: blocks of the text tower.
        dense_size: training size of the dense encoders, which sets their position table.
        head: options of the head beyond its widths.
        changes: arguments of `MMOVSeg`; the encoders may be left out with None.
    """
    clip = OpenCLIPEncoder(
        architecture=dict(
            embed_dim=16,
            quick_gelu=True,
            vision_cfg=dict(image_size=64, patch_size=16, width=64, layers=depth),
            text_cfg=dict(context_length=77, vocab_size=WORDS, width=64, heads=2, layers=text_layers),
        ),
        taps=clip_taps,
        dense="value_cls",
        finetune="qv",
        templates="released",
        words="first",
    )
    optical, sar = (
        TimmEncoder(
            "vit_small_patch8_224",
            taps=taps,
            image_size=dense_size,
            position_resize="dino_v1",
            model_args=dict(embed_dim=48, depth=depth, num_heads=3),
        )
        for _ in range(2)
    )
    widths = dict(
        channels=16,
        context_channels=8,
        level_channels=(12, 6),
        guidance_channels=(4, 2),
        decoder_channels=(32, 16),
        num_heads=2,
    )
    arguments = dict(
        clip=clip,
        optical_encoder=optical,
        sar_encoder=sar,
        head=dict(name="released") | widths | (head or {}),
        clip_norm=PixelNorm(mean=CLIP_MEAN, std=CLIP_STD),
        sar_norm=PixelNorm(mean=CLIP_MEAN, std=CLIP_STD),
    )
    return MMOVSeg(**(arguments | changes))


def load_model() -> MMOVSeg:
    """The whole model of `model/*`; its classes are padded to 256, as in the release."""
    sizes = dict(depth=9, text_layers=6, taps=TAPS, clip_taps=(4, 8), dense_size=224)
    model = small_model(**sizes, network_size=384, pad_multiple=32)
    state = with_all_words(convert(model_dims(), tensors("sd/model/")), "clip.model.")
    return load(model, state, "").eval()


def their_gradients(dims: ReleasedDims, module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Gradients under the official names; what all rules do to weights is linear, so it holds for gradients too."""
    ours = {prefix + name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    found: dict[str, torch.Tensor] = {}
    for rule in mmovseg_table(dims).rules:
        if rule.ours and all(name in ours for name in rule.ours):
            found |= rule.restore(ours)
    return found
