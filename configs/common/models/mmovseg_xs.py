"""XS models for MiniEarth: a CLIP of a few MB, dense encoders of the same shape, and MM-OVSeg over them."""

from detectron2.config import LazyCall as L

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.meta_arch import MMOVSeg

# Patches are pooled by averaging, so that single patches live in the text space too.
clip_architecture = dict(
    embed_dim=96,
    vision_cfg=dict(image_size=64, patch_size=8, width=96, layers=6, head_width=32, pool_type="avg"),
    text_cfg=dict(context_length=56, vocab_size=2048, width=96, heads=3, layers=3),
)
vit_args = dict(patch_size=8, embed_dim=96, depth=6, num_heads=3, pre_norm=True)
taps = (2, 4, 6)

# Channel statistics of 2,000 MiniEarth training scenes (domain "default"), see the data card.
optical_contract = L(ModalityContract)(
    sensor="MiniEarth optical",
    bands=("red", "green", "blue"),
    unit="uint8",
    mean=(111.0, 115.0, 88.0),
    std=(43.0, 30.5, 28.0),
)
sar_contract = L(ModalityContract)(
    sensor="MiniEarth C-band", bands=("VV", "VH"), unit="db", mean=(-12.2, -18.2), std=(5.3, 5.3), clip=(-35.0, 10.0)
)
input_contract = L(InputContract)(optical=optical_contract, sar=sar_contract, gsd_m=(2.5, 2.5), train_size=64)
optical_norm = L(PixelNorm)(mean=optical_contract.mean, std=optical_contract.std)
sar_norm = L(PixelNorm)(mean=sar_contract.mean, std=sar_contract.std, clip=sar_contract.clip)

optical_encoder = L(TimmEncoder)(
    name="vit_small_patch8_224", taps=taps, image_size=64, model_args=vit_args, weights=None
)
sar_encoder = L(TimmEncoder)(
    name="vit_small_patch8_224", taps=taps, image_size=64, model_args=vit_args, in_chans=2, weights=None
)
clip = L(OpenCLIPEncoder)(
    architecture=clip_architecture,
    taps=(2, 4),
    dense="tokens",
    finetune="qv",
    templates=("a photo of {}",),
    weights=None,
)

model = L(MMOVSeg)(
    clip=clip,
    optical_encoder=optical_encoder,
    sar_encoder=sar_encoder,
    # Strides relative to the 8-pixel patch as the release's 8/4/16 to its 16-pixel patch.
    head=dict(strides=(4, 2, 8), channels=(16, 8, 32), guidance_channels=(16, 8), similarity_scale=10.0),
    clip_norm=optical_norm,
    optical_norm=None,
    sar_norm=sar_norm,
    modality="both",
    init_projection_from_clip=True,
    input_contract=input_contract,
)
