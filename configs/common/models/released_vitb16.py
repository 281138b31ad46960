"""MM-OVSeg as its authors released it, ViT-B/16: CLIP ViT-B/16 (OpenAI) with DINO v1 ViT-B/8 for RGB and for SAR.

For the authors' checkpoints, converted: with them and the same inputs the outputs are the authors'. Differences from
the paper's text (`mmovseg_vitb16.py`): the head, the loss, the prompts, the patch size of DINO, and that CLIP's pixel
statistics serve for all images, SAR too.
"""

from detectron2.config import LazyCall as L

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.meta_arch import MMOVSeg

taps = (4, 8, 12)
_mean, _std = (122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.3231630)
optical_contract = L(ModalityContract)(
    sensor="any RGB", bands=("red", "green", "blue"), unit="uint8", mean=_mean, std=_std
)
# One uncalibrated 8-bit band, three times over.
sar_contract = L(ModalityContract)(
    sensor="any SAR as an 8-bit image", bands=("grey", "grey", "grey"), unit="amplitude8", mean=_mean, std=_std
)

model = L(MMOVSeg)(
    clip=L(OpenCLIPEncoder)(
        name="ViT-B-16-quickgelu",
        weights="openai",
        taps=(4, 8),
        dense="value_cls",
        finetune="qv",
        templates="released",
        words="first",
    ),
    # The release starts the optical encoder from remote sensing weights (RSIB) and the SAR encoder from its alignment
    # stage. Both come with a converted checkpoint; without one, these are DINO's own.
    optical_encoder=L(TimmEncoder)(
        name="vit_base_patch8_224.dino", taps=taps, weights="timm", position_resize="dino_v1"
    ),
    sar_encoder=L(TimmEncoder)(name="vit_base_patch8_224.dino", taps=taps, weights="timm", position_resize="dino_v1"),
    head=dict(name="released", class_chunk=32),
    clip_norm=L(PixelNorm)(mean=_mean, std=_std),
    optical_norm=None,  # CLIP's
    sar_norm=L(PixelNorm)(mean=_mean, std=_std),
    modality="both",
    clip_grid_stride=16,
    network_size=384,
    pad_multiple=32,
    input_contract=L(InputContract)(optical=optical_contract, sar=sar_contract, train_size=384),
)
