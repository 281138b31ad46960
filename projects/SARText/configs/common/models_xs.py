"""XS image-text models for MiniEarth: a CLIP and a CoCa with the same image tower, some 0.4 and 0.8 million weights."""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel
from mmovseg.projects.sartext.modeling.norms import grey_norm

_optical = get_config("common/models/mmovseg_xs.py").optical_contract

# Patches of 8 pixels: a fourth of the tokens of the XS CLIP of MM-OVSeg, and a retrieval needs no fine map.
_vision = dict(image_size=64, patch_size=8, width=64, layers=4, head_width=32)
_text = dict(context_length=64, vocab_size=2048, width=64, heads=2, layers=2)
clip_architecture = dict(embed_dim=64, vision_cfg=dict(**_vision, pool_type="avg"), text_cfg=_text)
coca_architecture = dict(
    embed_dim=64,
    vision_cfg=dict(**_vision, attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=32, output_tokens=True),
    text_cfg=dict(**_text, embed_cls=True, output_tokens=True),
    multimodal_cfg=dict(context_length=64, vocab_size=2048, width=64, heads=2, layers=2),
)

# SAR as CLIP models read it: one band as grey, of which -25 .. 5 dB become 0 .. 255, then the constants of the optical
# images that the model began with. The contract states the same in dB.
_low, _high = -25.0, 5.0
_scale = (_high - _low) / 255.0
sar_contract = L(ModalityContract)(
    sensor="MiniEarth SAR, VV as grey",
    bands=("VV", "VV", "VV"),
    unit="db",
    mean=[round(_low + _scale * value, 3) for value in _optical.mean],
    std=[round(_scale * value, 3) for value in _optical.std],
    clip=(_low, _high),
)
_optical_norm = L(PixelNorm)(mean=_optical.mean, std=_optical.std)
_sar_norm = L(grey_norm)(clip=(_low, _high), mean=_optical.mean, std=_optical.std)


def _model(kind, modality):
    reads_sar = modality == "sar"
    return L(ImageTextModel)(
        kind=kind,
        norm=_sar_norm if reads_sar else _optical_norm,
        architecture=clip_architecture if kind == "clip" else coca_architecture,
        weights=None,
        modality=modality,
        bands=(0, 0, 0) if reads_sar else None,
        contrastive_weight=1.0,
        caption_weight=1.0,
        input_contract=L(InputContract)(
            optical=None if reads_sar else _optical,
            sar=sar_contract if reads_sar else None,
            gsd_m=(2.5, 2.5),
            train_size=64,
        ),
    )


clip_optical, clip_sar = _model("clip", "optical"), _model("clip", "sar")
coca_optical, coca_sar = _model("coca", "optical"), _model("coca", "sar")
