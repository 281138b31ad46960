"""MM-OVSeg as its authors released it, ViT-L/14: CLIP ViT-L/14 at 336 px with DINOv3 ViT-L/16 for RGB and for SAR.

CLIP reads 336 pixels and DINOv3 384, so that both have a grid of 24x24. The release ran DINOv3 in train mode while it
trained, which rescales positions at random; here it is always in eval mode, as in the release's own inference.
"""

from mmovseg.config import get_config

model = get_config("common/models/released_vitb16.py").model
model.clip.name = "ViT-L-14-336-quickgelu"
model.clip.taps = (8, 16)
for encoder in (model.optical_encoder, model.sar_encoder):
    # The variant with query and value biases: the published weights have zeros there, the release need not.
    encoder.name = "vit_large_patch16_dinov3_qkvb.sat493m"
    encoder.taps = (8, 16, 24)
    encoder.position_resize = "timm"  # rotary positions, there is no table
    encoder.keep_rope_periods = True
