"""MM-OVSeg with large encoders: CLIP ViT-L/14 beside DINOv3 ViT-L/16, blocks 8/16/24 (paper, appendix D).

CLIP reads 336 of 384 pixels, so that its 14-pixel patches form the same 24x24 grid as the 16-pixel patches of DINOv3.
"""

from mmovseg.config import get_config

model = get_config("common/models/mmovseg_vitb16.py").model
model.clip.name = "ViT-L-14-336-quickgelu"
model.clip.taps = (8, 16)
for encoder in (model.optical_encoder, model.sar_encoder):
    encoder.name = (
        "vit_large_patch16_dinov3.sat493m"  # satellite pretraining, as the release; `.lvd1689m` is the web one
    )
    encoder.taps = (8, 16, 24)
model.clip_grid_stride = 16
