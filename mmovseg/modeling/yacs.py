"""MM-OVSeg for stock detectron2: yacs keys and registry entries.

``add_mmovseg_config(cfg)`` declares the keys; then ``detectron2.modeling.build_model(cfg)`` with
``MODEL.META_ARCHITECTURE: MMOVSeg`` builds the same model as the LazyConfig files, and ``MODEL.BACKBONE.NAME:
build_timm_encoder`` gives any detectron2 model one of our encoders.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

import mmovseg.modeling.meta_arch  # noqa: F401  (registers MMOVSeg)
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import TEMPLATES, OpenCLIPEncoder
from mmovseg.modeling.meta_arch.sar_text import SARTextEncoder


def _encoder_node(in_chans: int, mean: list[float], std: list[float], clip: list[float]) -> CfgNode:
    node = CfgNode()
    node.NAME = ""  # timm model; "" = no such encoder
    node.TAPS = [4, 8, 12]  # 1-based blocks
    node.WEIGHTS = ""  # "timm", a path, "clip:<path>" or "" for random
    node.IN_CHANS = in_chans
    node.IMAGE_SIZE = 0  # 0 = the timm model's own
    node.MODEL_ARGS = CfgNode(new_allowed=True)  # further constructor arguments
    node.LOCAL_LAST_BLOCK = False
    node.POSITION_RESIZE = "timm"  # or "dino_v1"
    node.KEEP_ROPE_PERIODS = False
    node.FREEZE = True
    node.NORM = CfgNode({"MEAN": mean, "STD": std, "CLIP": clip})
    return node


def _clip_node(norm: dict[str, list[float]]) -> CfgNode:
    node = CfgNode()
    node.NAME = ""  # "" = see ARCHITECTURE
    node.ARCHITECTURE = CfgNode(new_allowed=True)  # architecture as data, instead of NAME
    node.WEIGHTS = ""
    node.TAPS = [4, 8]
    node.DENSE = "value_cls"
    node.FINETUNE = "qv"
    node.TEMPLATES = list(TEMPLATES["paper"])
    node.WORDS = "all"  # or "first"
    node.BANDS = []  # channels of its raster that CLIP reads, [] = all
    node.GRID_STRIDE = 0  # 0 = CLIP's patch size
    node.NORM = CfgNode(norm)
    return node


def add_mmovseg_config(cfg: CfgNode) -> None:
    """Add ``MODEL.MMOVSEG`` and ``MODEL.TIMM_ENCODER``, by default the paper's ViT-B/16 model with random weights."""
    imagenet = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    cfg.MODEL.TIMM_ENCODER = _encoder_node(3, *imagenet, [])
    node = cfg.MODEL.MMOVSEG = CfgNode()
    node.MODALITY = "both"
    node.NETWORK_SIZE = 0  # 0 = inputs are read at their own size
    node.PAD_MULTIPLE = 0  # 0 = the coarsest stride
    clip_norm = {"MEAN": [122.7709383, 116.7460125, 104.09373615], "STD": [68.5005327, 66.6321579, 70.3231630]}
    node.CLIP = _clip_node({**clip_norm, "CLIP": []})
    node.CLIP.NAME = "ViT-B-16-quickgelu"
    node.CLIP.INPUT = "optical"  # or "sar"
    node.CLIP.INIT_PROJECTION = False
    # a CLIP that learned SAR from captions, which reads 8-bit amplitude as grey; neither NAME nor ARCHITECTURE = none
    node.SAR_TEXT = _clip_node({**clip_norm, "CLIP": []})
    node.SAR_TEXT.FINETUNE = "none"
    node.SAR_TEXT.BANDS = [0, 0, 0]
    node.OPTICAL = _encoder_node(3, *imagenet, [])
    node.SAR = _encoder_node(2, [-12.0, -18.5], [5.5, 5.5], [-35.0, 10.0])
    node.OPTICAL.NAME = node.SAR.NAME = "vit_base_patch16_224.dino"
    # CLIP's tower for SAR, read with the constants of SAR.NORM
    node.CLIP_SAR = _encoder_node(2, [], [], [])
    node.CLIP_SAR.TAPS = [12]
    node.CLIP_SAR.LOCAL_LAST_BLOCK = True
    del node.CLIP_SAR["NORM"]
    node.HEAD = CfgNode()
    node.HEAD.NAME = "paper"  # or "released", of which OPTIONS holds all arguments; the rest here is the paper head's
    node.HEAD.OPTIONS = CfgNode(new_allowed=True)
    node.HEAD.STRIDES = [8, 4, 16]
    node.HEAD.CHANNELS = [64, 32, 128]
    node.HEAD.GUIDANCE_CHANNELS = [32, 16]
    node.HEAD.SIMILARITY_SCALE = 1.0
    node.HEAD.SHARE_PROJECTIONS = True


def _plain(node: Any) -> Any:
    """CfgNode -> dict, all the way down."""
    return {key: _plain(value) for key, value in node.items()} if isinstance(node, dict) else node


def timm_encoder_from_node(node: CfgNode) -> TimmEncoder | None:
    """Build the encoder that a node of `add_mmovseg_config` describes, None for an empty NAME."""
    if not node.NAME:
        return None
    return TimmEncoder(
        node.NAME,
        taps=node.TAPS,
        weights=node.WEIGHTS or None,
        in_chans=node.IN_CHANS,
        image_size=node.IMAGE_SIZE or None,
        model_args=_plain(node.MODEL_ARGS),
        local_last_block=node.LOCAL_LAST_BLOCK,
        position_resize=node.POSITION_RESIZE,
        keep_rope_periods=node.KEEP_ROPE_PERIODS,
        freeze=node.FREEZE,
    )


def _clip_from_node(node: CfgNode) -> OpenCLIPEncoder:
    return OpenCLIPEncoder(
        node.NAME or None,
        weights=node.WEIGHTS or None,
        architecture=_plain(node.ARCHITECTURE) or None,
        taps=node.TAPS,
        dense=node.DENSE,
        finetune=node.FINETUNE,
        templates=node.TEMPLATES,
        words=node.WORDS,
    )


def _sar_text_from_node(node: CfgNode) -> SARTextEncoder | None:
    if not node.NAME and not node.ARCHITECTURE:
        return None
    return SARTextEncoder(
        clip=_clip_from_node(node),
        norm=_norm_from_node(node.NORM),
        bands=node.BANDS or None,
        grid_stride=node.GRID_STRIDE or None,
    )


def _norm_from_node(node: CfgNode) -> PixelNorm:
    return PixelNorm(mean=node.MEAN, std=node.STD, clip=node.CLIP or None)


def _head_arguments(node: CfgNode) -> dict[str, Any]:
    own = {key: value for key, value in node.items() if key not in ("NAME", "OPTIONS")} if node.NAME == "paper" else {}
    return {"name": node.NAME} | {key.lower(): value for key, value in (own | _plain(node.OPTIONS)).items()}


@BACKBONE_REGISTRY.register()
def build_timm_encoder(cfg: CfgNode, input_shape: ShapeSpec) -> TimmEncoder:
    """Backbone for any detectron2 model, from ``MODEL.TIMM_ENCODER``. Raises ValueError when its NAME is empty."""
    encoder = timm_encoder_from_node(cfg.MODEL.TIMM_ENCODER)
    if encoder is None:
        raise ValueError("MODEL.TIMM_ENCODER.NAME is empty")
    return encoder


def mmovseg_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Return `MMOVSeg`'s constructor arguments as ``MODEL.MMOVSEG`` describes them."""
    node = cfg.MODEL.MMOVSEG
    # Built in the order of the LazyConfig files, so that one seed gives both the same random weights.
    clip = _clip_from_node(node.CLIP)
    optical, sar = timm_encoder_from_node(node.OPTICAL), timm_encoder_from_node(node.SAR)
    clip_sar = timm_encoder_from_node(node.CLIP_SAR)
    return dict(
        clip=clip,
        optical_encoder=optical,
        sar_encoder=sar,
        clip_sar_encoder=clip_sar,
        sar_text=_sar_text_from_node(node.SAR_TEXT),
        head=_head_arguments(node.HEAD),
        clip_norm=_norm_from_node(node.CLIP.NORM),
        optical_norm=_norm_from_node(node.OPTICAL.NORM) if optical is not None else None,
        sar_norm=_norm_from_node(node.SAR.NORM) if sar is not None or clip_sar is not None else None,
        modality=node.MODALITY,
        clip_bands=node.CLIP.BANDS or None,
        clip_input=node.CLIP.INPUT,
        clip_grid_stride=node.CLIP.GRID_STRIDE or None,
        network_size=node.NETWORK_SIZE or None,
        pad_multiple=node.PAD_MULTIPLE or None,
        init_projection_from_clip=node.CLIP.INIT_PROJECTION,
    )
