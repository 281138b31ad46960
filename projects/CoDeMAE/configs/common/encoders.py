"""Encoders of CoDe-MAE for pretraining: two sensors, positions of the pretraining size, random start.

Downstream configs take one and say `sensor`, `weights`, `drop_path` and `out_features`.
"""

from mmovseg.config import LazyCall as L
from mmovseg.projects.codemae.modeling.hivit import HiViT
from mmovseg.projects.codemae.modeling.masked_timm import MaskedViT

# The paper's (HiViT-B / iTPN-B, 79M): widths 128, 256, 512, 14x14 units of 16 px. SAR is one channel three times, as
# the released weights want it.
hivit_b = L(HiViT)(
    in_chans=dict(optical=3, sar=3),
    stem_dim=128,
    depths=[3, 3, 24],
    num_heads=8,
    unit_size=16,
    image_size=224,
    pyramid_dim=256,
)

# In the release, but not in the paper: width 768, two blocks in the MLP stages.
hivit_l = L(HiViT)(
    in_chans=dict(optical=3, sar=3),
    stem_dim=192,
    depths=[2, 2, 40],
    num_heads=12,
    unit_size=16,
    image_size=224,
    pyramid_dim=256,
)

# For MiniEarth: 8x8 units of 8 px, widths 24, 48, 96, SAR with both of its channels (VV, VH). The fine sub-tokens cost
# the most, so their widths set the price: a forward and backward pass over 64 pairs with 16 visible units each takes
# 0.35 s on one core; with 32 channels at the start and in the pyramid 0.5 s, with 64 in the pyramid 0.85 s.
hivit_xs = L(HiViT)(
    in_chans=dict(optical=3, sar=2),
    stem_dim=24,
    depths=[1, 1, 4],
    num_heads=3,
    unit_size=8,
    image_size=64,
    pyramid_dim=24,
)

# Plain vision transformers, to see what the method does without a hierarchy: the usual B, and one of about the cost of
# hivit_xs.
timm_vit_b = L(MaskedViT)(name="vit_base_patch16_224", in_chans=dict(optical=3, sar=3), image_size=224)

timm_vit_xs = L(MaskedViT)(
    name="vit_base_patch16_224",
    model_args=dict(patch_size=8, embed_dim=128, depth=6, num_heads=4),
    in_chans=dict(optical=3, sar=2),
    image_size=64,
)
