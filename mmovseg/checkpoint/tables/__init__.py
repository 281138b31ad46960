"""One explicit key table a source: which tensor of a foreign checkpoint is which of ours."""

from __future__ import annotations

from collections.abc import Callable

from mmovseg.checkpoint.rules import KeyTable
from mmovseg.checkpoint.tables.clip import catseg_clip_tables, gsnet_clip_tables, openai_clip_tables
from mmovseg.checkpoint.tables.codemae import codemae_tables
from mmovseg.checkpoint.tables.dino import dino_tables
from mmovseg.checkpoint.tables.dinov3 import dinov3_tables
from mmovseg.checkpoint.tables.dinov3_hf import dinov3_hf_tables
from mmovseg.checkpoint.tables.itpn import itpn_tables
from mmovseg.checkpoint.tables.mmovseg import mmovseg_vitb16_tables, mmovseg_vitl14_tables

# Source -> maker of its tables, one an architecture and way of naming; the first one is the default for the way back.
SOURCES: dict[str, Callable[[], tuple[KeyTable, ...]]] = {
    "mmovseg_vitb16": mmovseg_vitb16_tables,
    "mmovseg_vitl14": mmovseg_vitl14_tables,
    "dino": dino_tables,
    "dinov3": dinov3_tables,
    "dinov3_hf": dinov3_hf_tables,
    "codemae": codemae_tables,
    "itpn": itpn_tables,
    "openai_clip": openai_clip_tables,
    "gsnet_clip": gsnet_clip_tables,
    "catseg_clip": catseg_clip_tables,
}

__all__ = ["SOURCES"]
