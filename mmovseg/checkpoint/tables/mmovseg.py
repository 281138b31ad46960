"""The released MM-OVSeg models, ViT-B/16 and ViT-L/14, as detectron2 checkpoints.

Ours is `MMOVSeg` with the head ``released``. Beside renaming:

- their fusion convolution reads [CLIP, dense], ours [dense, CLIP]: the halves of its input channels change places;
- the first convolution of a decoder stage reads [upsampled, CLIP guidance, dense guidance]; ours is two convolutions,
  so that guidance, which is the same for every class, is convolved once;
- the shifted-window mask is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmovseg.checkpoint.rules import KeyTable, Rule, Shape, constant, copies, copy, split, swap
from mmovseg.checkpoint.tables.clip import CLIP_L14_336, SEGMENTATION_PREFIX, ClipDims, clip_rules
from mmovseg.checkpoint.tables.contracts import RELEASED
from mmovseg.checkpoint.tables.dino import DinoDims, dino_rules
from mmovseg.checkpoint.tables.dinov3 import Dinov3Dims, dinov3_rules
from mmovseg.layers.window_attention import shifted_window_mask

_HEAD = "sem_seg_head.predictor.transformer."
# Their prefix of each modality's encoder, and of its projections.
_ENCODERS = {"optical": "dino_model.", "sar": "dino_sarmodel."}
_PROJECTIONS = {"optical": "dino_", "sar": "dino_sar"}


@dataclass(frozen=True)
class ReleasedDims:
    """Sizes of a released model; the defaults are ViT-B/16.

    taps: 1-based blocks of the dense encoders that are read.
    projections: for each tap (kind, kernel): ``conv`` or ``up`` (transposed convolution).
    hidden: channels of the class volume. guidance: channels of the two decoder guidance maps, and as projected.
    decoder: channels of the two decoder stages. grid, window: cells along one side of the class volume and of an
        attention window, which is shifted by half of it.
    """

    clip: ClipDims = field(default_factory=ClipDims)
    dense: DinoDims | Dinov3Dims = field(default_factory=DinoDims)
    taps: tuple[int, int, int] = (4, 8, 12)
    projections: tuple[tuple[str, int], ...] = (("conv", 1), ("up", 2), ("conv", 2))
    hidden: int = 128
    projected_guidance: int = 128
    guidance: tuple[int, int] = (256, 128)
    guidance_out: tuple[int, int] = (32, 16)
    decoder: tuple[int, int] = (64, 32)
    layers: int = 2
    grid: int = 24
    window: int = 12


RELEASED_B16 = ReleasedDims()
RELEASED_L14 = ReleasedDims(
    clip=CLIP_L14_336,
    dense=Dinov3Dims(),
    taps=(8, 16, 24),
    projections=(("up", 2), ("up", 4), ("conv", 1)),
)


def mmovseg_table(dims: ReleasedDims, *, source: str = "mmovseg_vitb16") -> KeyTable:
    """The whole model."""
    rules = clip_rules(dims.clip, theirs=SEGMENTATION_PREFIX, ours="clip.model.", packed=False)
    for modality, theirs in _ENCODERS.items():
        ours = f"{modality}_encoder.model."
        if isinstance(dims.dense, Dinov3Dims):
            rules += dinov3_rules(dims.dense, theirs=theirs, ours=ours)
        else:
            rules += dino_rules(dims.dense, theirs=theirs, ours=ours)
    rules += _adapter_rules(dims) + _fusion_rules(dims)
    for layer in range(dims.layers):
        rules += _spatial_rules(dims, layer) + _class_rules(dims, layer)
    rules += _decoder_rules(dims)
    return KeyTable(
        source=source,
        architecture=f"{dims.clip.name} with {dims.dense.name}",
        rules=tuple(rules),
        entries=("model",),
        contract=RELEASED,
        use=f"--config-file configs/mmovseg/{source.replace('mmovseg', 'released')}.py train.init_checkpoint=<path>",
    )


def _both(theirs: str, ours: str, weight: Shape, bias: int) -> list[Rule]:
    """The weight and the bias of one layer."""
    return [copy(f"{theirs}.weight", f"{ours}.weight", weight), copy(f"{theirs}.bias", f"{ours}.bias", (bias,))]


def _adapter_rules(dims: ReleasedDims) -> list[Rule]:
    """Convolutions that bring encoder maps to the strides of the head."""
    rules = []
    names, channels = ("decod_proj1", "decod_proj2", "down_sample"), (*dims.guidance, dims.clip.embed)
    for modality, prefix in _PROJECTIONS.items():
        for name, tap, (kind, kernel), out in zip(names, dims.taps, dims.projections, channels, strict=True):
            pair = (dims.dense.width, out) if kind == "up" else (out, dims.dense.width)
            ours = f"head.dense.projections.{modality}.block{tap}"
            rules += _both(prefix + name, ours, (*pair, kernel, kernel), out)
    for index, (kernel, out) in enumerate(zip((2, 4), dims.guidance, strict=True)):
        shape = (dims.clip.width, out, kernel, kernel)
        rules += _both(f"upsample{index + 1}", f"head.clip_adapters.{index}", shape, out)
    return rules


def _fusion_rules(dims: ReleasedDims) -> list[Rule]:
    hidden, embed, projected = dims.hidden, dims.clip.embed, dims.projected_guidance
    rules = [
        *_both(_HEAD + "conv1", "head.fusion.embed_global", (hidden, 1, 7, 7), hidden),
        *_both(_HEAD + "conv2", "head.fusion.embed_dense", (hidden, 1, 7, 7), hidden),
        swap(_HEAD + "fusion_corr.weight", "head.fusion.fuse.weight", (hidden, 2 * hidden, 7, 7), dim=1),
        copy(_HEAD + "fusion_corr.bias", "head.fusion.fuse.bias", (hidden,)),
        *_both(_HEAD + "guidance_projection.0", "head.appearance_guidance", (projected, embed, 3, 3), projected),
        *_both(_HEAD + "text_guidance_projection.0", "head.text_guidance", (projected, embed), projected),
    ]
    for theirs, ours in (("CLIP", "clip"), ("DINO", "dense")):
        for index, (size, out) in enumerate(zip(dims.guidance, dims.guidance_out, strict=True)):
            name = f"{_HEAD}{theirs}_decoder_guidance_projection.{index}.0"
            rules += _both(name, f"head.{ours}_guidance.{index}", (out, size, 3, 3), out)
    return rules


def _attention_rows(hidden: int, guidance: int) -> dict[str, tuple[str, Shape]]:
    """Their name -> (our name, shape) of the projections that both kinds of attention have."""
    rows: dict[str, tuple[str, Shape]] = {}
    for theirs, ours in (("q", "query"), ("k", "key")):
        rows |= {f"{theirs}.weight": (f"{ours}.weight", (hidden, hidden + guidance))}
        rows |= {f"{theirs}.bias": (f"{ours}.bias", (hidden,))}
    return rows | {"v.weight": ("value.weight", (hidden, hidden)), "v.bias": ("value.bias", (hidden,))}


def _norm_rows(hidden: int) -> dict[str, Shape]:
    return {f"{name}.{kind}": (hidden,) for name in ("norm1", "norm2") for kind in ("weight", "bias")}


def _spatial_rules(dims: ReleasedDims, layer: int) -> list[Rule]:
    """A pair of Swin blocks."""
    hidden = dims.hidden
    pair, ours_pair = f"{_HEAD}layers.{layer}.swin_block.", f"head.layers.{layer}.spatial."
    norm: dict[str, Shape] = {f"guidance_norm.{kind}": (dims.projected_guidance,) for kind in ("weight", "bias")}
    rules = copies(norm, theirs=pair, ours=ours_pair)
    for block in range(2):
        theirs, ours = f"{pair}block_{block + 1}.", f"{ours_pair}blocks.{block}."
        rules += copies(_norm_rows(hidden), theirs=theirs, ours=ours)
        for name, (mine, shape) in _attention_rows(hidden, dims.projected_guidance).items():
            rules.append(copy(f"{theirs}attn.{name}", ours + mine, shape))
        rules += _both(theirs + "attn.proj", ours + "proj", (hidden, hidden), hidden)
        rules += _both(theirs + "mlp.fc1", ours + "mlp.0", (4 * hidden, hidden), 4 * hidden)
        rules += _both(theirs + "mlp.fc2", ours + "mlp.2", (hidden, 4 * hidden), hidden)
    windows, places = (dims.grid // dims.window) ** 2, dims.window**2
    mask = constant(pair + "block_2.attn_mask", lambda: window_mask(dims.grid, dims.window), (windows, places, places))
    return [*rules, mask]


def window_mask(grid: int, window: int) -> Tensor:
    """(windows, places, places): 0 where two places of a shifted window may see each other, else -100."""
    mask = shifted_window_mask((grid, grid), (window, window), (window // 2, window // 2))
    if mask is None:
        raise ValueError(f"a window of {window} is not shifted on a grid of {grid}")
    return torch.where(mask == 0, 0.0, mask)  # no negative zeros: constants are compared bit by bit


def _class_rules(dims: ReleasedDims, layer: int) -> list[Rule]:
    """Linear attention over classes."""
    hidden, guidance = dims.hidden, dims.projected_guidance
    theirs, ours = f"{_HEAD}layers.{layer}.attention.", f"head.layers.{layer}.classes."
    rules = copies(_norm_rows(hidden), theirs=theirs, ours=ours)
    for name, (mine, shape) in _attention_rows(hidden, guidance).items():
        rules.append(copy(f"{theirs}attention.{name}", ours + mine, shape))
    rules += _both(theirs + "MLP.0", ours + "mlp.0", (4 * hidden, hidden), 4 * hidden)
    rules += _both(theirs + "MLP.2", ours + "mlp.2", (hidden, 4 * hidden), hidden)
    return [
        *rules,
        copy(theirs + "padding_tokens", ours + "padding_token", (1, 1, hidden)),
        copy(theirs + "padding_guidance", ours + "padding_guidance", (1, 1, guidance)),
    ]


def _decoder_rules(dims: ReleasedDims) -> list[Rule]:
    rules = []
    size = dims.hidden
    for index, (out, guidance) in enumerate(zip(dims.decoder, dims.guidance_out, strict=True)):
        theirs, ours = f"{_HEAD}Fusiondecoder{index + 1}.", f"head.decoder.{index}."
        up = size - guidance  # the guidance of one encoder replaces as many channels
        refine = {f"{ours}refine.conv1.weight": up, f"{ours}refine.guidance.weight": 2 * guidance}
        double, own = theirs + "conv.double_conv.", ours + "refine."
        rules += [
            *_both(theirs + "up", ours + "up", (size, up, 2, 2), up),
            split(double + "0.weight", refine, (out, up + 2 * guidance, 3, 3), dim=1),
            *_both(double + "1", own + "norm1", (out,), out),
            copy(double + "3.weight", own + "conv2.weight", (out, out, 3, 3)),
            *_both(double + "4", own + "norm2", (out,), out),
        ]
        size = out
    return [*rules, *_both(_HEAD + "head", "head.classifier", (1, size, 3, 3), 1)]


def mmovseg_vitb16_tables() -> tuple[KeyTable, ...]:
    """ViT-B/16 of CLIP with two ViT-B/8 of DINO v1."""
    return (mmovseg_table(RELEASED_B16, source="mmovseg_vitb16"),)


def mmovseg_vitl14_tables() -> tuple[KeyTable, ...]:
    """ViT-L/14 of CLIP at 336 pixels with two ViT-L/16 of DINOv3, satellite pretraining."""
    return (mmovseg_table(RELEASED_L14, source="mmovseg_vitl14"),)
