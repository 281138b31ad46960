"""Baseline of Table 3, 'w/o CMU&DEF': optical images, CLIP's similarity alone, no dense encoder."""

from mmovseg.config import get_config

_base = get_config("miniearth/mmovseg_xs_optical.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.optical_encoder = None
model.init_projection_from_clip = False
train.output_dir = "output/miniearth/mmovseg_xs_clip_only"
