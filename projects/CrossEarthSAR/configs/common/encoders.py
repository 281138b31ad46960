"""Encoders of CrossEarth-SAR: `moe_<size>` has six experts a block, `dense_<size>` is the same model without any.

S, B and L start from DINOv2 (patch 14 brought to 16, so that 512 px are 32x32 tokens); their SAR is one channel three
times. XS is for MiniEarth: the architecture of the shipped `sar_xs`, one channel, 4-pixel patches.

The paper's own routing, word for word: ``gate=renorm descriptors.weighting=count descriptors.norm=none``.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.sar import AMPLITUDE8_TOP_DB
from mmovseg.projects.crossearth.modeling.descriptors import SARDescriptors
from mmovseg.projects.crossearth.modeling.moe_encoder import MoEEncoder

# Blocks 8, 12, 16 and 24 of L as in Rein and Earth-Adapter; half of these numbers for the two of 12 blocks.
_taps = dict(s=(4, 6, 8, 12), b=(4, 6, 8, 12), l=(8, 12, 16, 24))
_names = dict(
    s="vit_small_patch14_dinov2.lvd142m", b="vit_base_patch14_dinov2.lvd142m", l="vit_large_patch14_dinov2.lvd142m"
)


def _dinov2(size, **own):
    return L(MoEEncoder)(
        name=_names[size],
        taps=_taps[size],
        image_size=512,
        model_args=dict(patch_size=16),
        weights="timm",
        **own,
    )


def _xs(**own):
    return L(MoEEncoder)(
        name="vit_small_patch8_224",
        taps=(1, 2, 3, 4),
        in_chans=1,
        image_size=64,
        model_args=dict(patch_size=4, embed_dim=64, depth=4, num_heads=2, pre_norm=True),
        weights="folded:shipped://sar_xs",
        **own,
    )


def _experts(**descriptors):
    return dict(num_experts=6, top_k=1, gate="st", descriptors=L(SARDescriptors)(**descriptors))


# Blocks of 8 px: 64 px then have 8x8 of them. Constants of 400 scenes of the pretraining pool, see data_gaps.py.
moe_xs = _xs(**_experts(block=8, mean=(0.994, 3.815, 0.316), std=(0.0043, 0.607, 0.121)))
# As the SAR encoder of MM-OVSeg and of its alignment: both bands in dB, whose normalisation is undone for the
# descriptors; every tap through the last norm; the last block without mixing of tokens, as those weights were trained.
_mmovseg = get_config("common/models/mmovseg_xs.py")
moe_xs_db = L(MoEEncoder)(
    name=_mmovseg.sar_encoder.name,
    taps=_mmovseg.sar_encoder.taps,
    in_chans=2,
    image_size=64,
    model_args=_mmovseg.sar_encoder.model_args,
    local_last_block=True,
    final_norm=True,
    weights="shipped://sar_xs",
    raw_norm=_mmovseg.sar_norm,
    # To the 8-bit amplitude of mmovseg.data.sar; constants of 400 training scenes (analysis.descriptors).
    **_experts(
        block=8,
        unit="db",
        gain=255 * 10 ** (-AMPLITUDE8_TOP_DB / 20),
        mean=(0.9941, 3.904, 0.2997),
        std=(0.0041, 0.5053, 0.1154),
    ),
)
moe_s = _dinov2("s", **_experts(channels="first"))
moe_b = _dinov2("b", **_experts(channels="first"))
moe_l = _dinov2("l", **_experts(channels="first"))

dense_xs = _xs(num_experts=None)
dense_s = _dinov2("s", num_experts=None)
dense_b = _dinov2("b", num_experts=None)
dense_l = _dinov2("l", num_experts=None)
