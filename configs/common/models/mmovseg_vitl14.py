"""MM-OVSeg with large encoders: CLIP ViT-L/14 beside DINOv3 ViT-L/16, blocks 8/16/24 (paper, appendix D).

CLIP reads 336 of 384 pixels, so that its 14-pixel patches form the same 24x24 grid as the 16-pixel patches of DINOv3.
Optical images are normalised as in DINOv3's satellite pretraining. SAR keeps the constants of the ViT-B/16 configs:
those of optical images would say nothing about backscatter.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.layers.norm import PixelNorm

model = get_config("common/models/mmovseg_vitb16.py").model
model.clip.name = "ViT-L-14-336-quickgelu"
model.clip.taps = (8, 16)
for encoder in (model.optical_encoder, model.sar_encoder):
    # Satellite pretraining, as the release; `.lvd1689m` is the web one, with ImageNet's constants.
    encoder.name = "vit_large_patch16_dinov3.sat493m"
    encoder.taps = (8, 16, 24)
# timm's for this encoder: (.430, .411, .296) and (.213, .156, .143) of 255.
_optical = model.input_contract.optical
_optical.mean, _optical.std = (109.65, 104.805, 75.48), (54.315, 39.78, 36.465)
model.optical_norm = L(PixelNorm)(mean=_optical.mean, std=_optical.std)
model.clip_grid_stride = 16
