"""Meta-architectures: each wires encoders, heads and losses, and keeps the list-of-dicts contract."""

from mmovseg.modeling.meta_arch.aligner import PatchAligner
from mmovseg.modeling.meta_arch.clip_pretrainer import CLIPPretrainer
from mmovseg.modeling.meta_arch.ovseg import MMOVSeg

__all__ = ["CLIPPretrainer", "MMOVSeg", "PatchAligner"]
