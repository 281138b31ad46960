"""Adapters for a frozen encoder; a leaf puts one in:

    model.encoder = L(adapt_encoder)(encoder=model.encoder, adapter=adapters.earth)

The paper's rows marked * take Earth-Adapter and give no rank, cutoff or blocks: these values are the commonest in the
Earth-Adapter release (rank 64, 0.3, the first six blocks of 24).
"""

from mmovseg.config import LazyCall as L
from mmovseg.projects.crossearth.modeling.adapters import EarthAdapter, LoRAAdapter, ReinAdapter

earth = L(EarthAdapter)(rank=64, cutoff=0.3, frequency_blocks=6, frequency_position="first")
lora = L(LoRAAdapter)(rank=16, targets=["attn.qkv", "attn.proj"])
rein = L(ReinAdapter)(num_tokens=100, rank=16)

# For the four blocks of width 64: a quarter of the width, and a quarter of the blocks.
earth_xs = L(EarthAdapter)(rank=16, cutoff=0.3, frequency_blocks=1, frequency_position="first")
lora_xs = L(LoRAAdapter)(rank=4, targets=["attn.qkv", "attn.proj"])
rein_xs = L(ReinAdapter)(num_tokens=20, rank=4)
