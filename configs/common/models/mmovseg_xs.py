"""XS models for MiniEarth: a CLIP of a few MB, dense encoders of the same shape, and MM-OVSeg over them."""

from detectron2.config import LazyCall as L

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.meta_arch import MMOVSeg

# One patch is 4 pixels (10 m), so that a road is wider than a patch. Patches are pooled by averaging, so that single
# patches live in the text space too.
clip_architecture = dict(
    embed_dim=64,
    vision_cfg=dict(image_size=64, patch_size=4, width=64, layers=4, head_width=32, pool_type="avg"),
    text_cfg=dict(context_length=64, vocab_size=2048, width=64, heads=2, layers=3),
)
vit_args = dict(patch_size=4, embed_dim=64, depth=4, num_heads=2, pre_norm=True)
taps = (1, 3, 4)

# Channel statistics of 2,000 MiniEarth training scenes (domain "default"), see the data card.
optical_contract = L(ModalityContract)(
    sensor="MiniEarth optical",
    bands=("red", "green", "blue"),
    unit="uint8",
    mean=(107.2, 111.5, 85.7),
    std=(45.5, 32.0, 29.0),
)
sar_contract = L(ModalityContract)(
    sensor="MiniEarth C-band", bands=("VV", "VH"), unit="db", mean=(-12.2, -18.2), std=(5.3, 5.3), clip=(-35.0, 10.0)
)
input_contract = L(InputContract)(optical=optical_contract, sar=sar_contract, gsd_m=(2.5, 2.5), train_size=64)
optical_norm = L(PixelNorm)(mean=optical_contract.mean, std=optical_contract.std)
sar_norm = L(PixelNorm)(mean=sar_contract.mean, std=sar_contract.std, clip=sar_contract.clip)

optical_encoder = L(TimmEncoder)(
    name="vit_small_patch8_224", taps=taps, image_size=64, model_args=vit_args, local_last_block=True, weights=None
)
sar_encoder = L(TimmEncoder)(
    name="vit_small_patch8_224",
    taps=taps,
    image_size=64,
    model_args=vit_args,
    local_last_block=True,
    in_chans=2,
    weights=None,
)
clip = L(OpenCLIPEncoder)(
    architecture=clip_architecture,
    taps=(1, 3),
    dense="value_own",
    finetune="qv",
    templates="paper",
    weights=None,
)

model = L(MMOVSeg)(
    clip=clip,
    optical_encoder=optical_encoder,
    sar_encoder=sar_encoder,
    # The release has strides 8/4/16 with 16-pixel patches; here the patch is 4 pixels and the finest level 2.
    head=dict(strides=(4, 2, 4), channels=(24, 16, 24), guidance_channels=(24, 16), similarity_scale=10.0),
    clip_norm=optical_norm,
    optical_norm=None,
    sar_norm=sar_norm,
    modality="both",
    init_projection_from_clip=True,
    input_contract=input_contract,
)
