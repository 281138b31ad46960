"""The paper's settings and the released models shrunk to seconds: small widths and images, everything else as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mmovseg.checkpoint.rules import KeyTable
from mmovseg.checkpoint.tables.mmovseg import mmovseg_table
from mmovseg.config import load_config, save_config
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.testing.checkpoints import TINY_CLIP, TINY_DINO, TINY_DINOV3, TINY_RELEASED_B16, TINY_RELEASED_L14

SIDE_PX = 128
"""What stands for the 384 pixels of the full models: 8 patches of CLIP instead of 24."""

_CONTEXT = 64
_LARGE_PATCH = 14


def write_small_run(folder: str | Path, name: str, *, max_iter: int = 2) -> Path:
    """Write a shipped ViT config shrunk to seconds: random weights, CPU, two steps of two samples.

    Kept are data sets, class lists, reader, normalisation, head, templates, what trains and how. Data come from where
    `DETECTRON2_DATASETS` says, see `mmovseg.testing.trees.write_tree`.

    Args:
        folder: gets `config.yaml`; the run's output goes to its subfolder `run`.
        name: which config, below ``configs/``.
        max_iter: training steps.

    Returns:
        Path of the config.
    """
    config = load_config(name)
    shrink_model(config.model)
    for part in (config.dataloader.train, config.dataloader.test):
        part.num_workers = 0
        part.mapper.geometry[0].short_edge_px = SIDE_PX
        if "sar_geometry" in part.mapper:
            part.mapper.canvas_px = SIDE_PX
    config.dataloader.train.mapper.geometry[1].size = SIDE_PX
    config.dataloader.train.batch_size = 2
    config.train.max_iter = max_iter
    config.train.log_period = 1
    config.train.device = "cpu"
    config.train.tensorboard = False
    config.train.output_dir = str(Path(folder) / "run")
    save_config(config, Path(folder) / "config.yaml")
    return Path(folder) / "config.yaml"


def shrink_model(model: DictConfig) -> None:
    """Give a model of ``configs/common/models`` small widths and depths; patch sizes and connections stay."""
    forget_foundation_weights(model)
    large = "-L-14" in model.clip.name
    _shrink_clip(model.clip, _LARGE_PATCH if large else TINY_CLIP.patch)
    for encoder in (model.optical_encoder, model.sar_encoder):
        encoder.taps = (1, 2, 3)
        if "dinov3" in encoder.name:
            encoder.model_args = {"embed_dim": TINY_DINOV3.width, "depth": TINY_DINOV3.depth, "num_heads": 1}
        else:
            encoder.image_size = TINY_DINO.grid * (8 if "patch8" in encoder.name else 16)
            encoder.model_args = {"embed_dim": TINY_DINO.width, "depth": TINY_DINO.depth, "num_heads": 2}
    if model.head.get("name", "paper") == "paper":
        model.head.channels, model.head.guidance_channels = (16, 8, 16), (8, 4)
        return
    dims = TINY_RELEASED_B16
    model.network_size = SIDE_PX
    model.head.channels, model.head.context_channels = dims.hidden, dims.projected_guidance
    model.head.level_channels, model.head.guidance_channels = list(dims.guidance), list(dims.guidance_out)
    model.head.decoder_channels, model.head.window = list(dims.decoder), dims.window


def _shrink_clip(clip: DictConfig, patch: int) -> None:
    vision: dict[str, Any] = {"image_size": TINY_CLIP.grid * patch, "patch_size": patch, "width": TINY_CLIP.width}
    text: dict[str, Any] = {"context_length": _CONTEXT, "vocab_size": TINY_CLIP.words, "width": TINY_CLIP.text_width}
    clip.name = None
    clip.architecture = {
        "embed_dim": TINY_CLIP.embed,
        "vision_cfg": vision | {"layers": TINY_CLIP.depth, "head_width": 32},
        "text_cfg": text | {"layers": TINY_CLIP.text_depth, "heads": 2},
        "quick_gelu": True,
    }
    clip.taps = (1, 2)


def small_released_table(size: str) -> KeyTable:
    """Return the key table of the released model that `shrink_model` makes of ``released_<size>``.

    Args:
        size: ``vitb16`` or ``vitl14``.
    """
    dims = TINY_RELEASED_B16 if size == "vitb16" else TINY_RELEASED_L14
    patch = TINY_CLIP.patch if size == "vitb16" else _LARGE_PATCH
    dims = replace(dims, clip=replace(dims.clip, context=_CONTEXT, patch=patch))
    return mmovseg_table(dims, source=f"mmovseg_{size}")
