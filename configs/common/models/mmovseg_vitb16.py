"""MM-OVSeg of the paper, ViT-B/16: CLIP ViT-B/16 (OpenAI) with DINO v1 ViT-B/16 for RGB and for SAR (Sec. 4.1.2)."""

from detectron2.config import LazyCall as L

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.meta_arch import MMOVSeg

taps = (4, 8, 12)

# CLIP's own pixel statistics for CLIP, ImageNet's for DINO (the release gives CLIP's to all encoders).
clip_norm = L(PixelNorm)(mean=(122.7709383, 116.7460125, 104.09373615), std=(68.5005327, 66.6321579, 70.3231630))
optical_contract = L(ModalityContract)(
    sensor="any RGB",
    bands=("red", "green", "blue"),
    unit="uint8",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
sar_contract = L(ModalityContract)(
    sensor="dual-polarised C-band",
    bands=("VV", "VH"),
    unit="db",
    mean=(-12.0, -18.5),
    std=(5.5, 5.5),
    clip=(-35.0, 10.0),
)

model = L(MMOVSeg)(
    clip=L(OpenCLIPEncoder)(
        name="ViT-B-16-quickgelu",
        weights="openai",
        taps=(4, 8),
        dense="value_cls",
        finetune="qv",
        templates="paper",
    ),
    optical_encoder=L(TimmEncoder)(name="vit_base_patch16_224.dino", taps=taps, weights="timm"),
    # DINO's RGB filters folded to two channels, the paper's "w/o CMU". `model.sar_encoder.weights=<path>` takes an
    # encoder aligned by CMU instead, see projects/CMU.
    sar_encoder=L(TimmEncoder)(name="vit_base_patch16_224.dino", taps=taps, weights="timm", in_chans=2),
    head=dict(strides=(8, 4, 16), channels=(64, 32, 128), guidance_channels=(32, 16)),
    clip_norm=clip_norm,
    optical_norm=L(PixelNorm)(mean=optical_contract.mean, std=optical_contract.std),
    sar_norm=L(PixelNorm)(mean=sar_contract.mean, std=sar_contract.std, clip=sar_contract.clip),
    modality="both",
    input_contract=L(InputContract)(optical=optical_contract, sar=sar_contract, train_size=384),
)
