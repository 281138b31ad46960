"""MM-OVSeg XS with a CLIP tower for SAR (Table A5, models 2 and 4), at the budget of the ablations.

Model 4 as it stands: both encoders of SAR are aligned. Model 2: `model.sar_encoder.weights=clip:shipped://clip_xs`, the
un-aligned start. Models 1 and 3, without the tower, are `mmovseg_xs_ablation.py` with these two weights.
"""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/mmovseg_xs_ablation.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

# XS dense encoders have the shape of CLIP's tower and are aligned to it, so one file serves both places.
model.clip_sar_encoder = get_config("common/models/mmovseg_xs.py").sar_encoder
model.clip_sar_encoder.weights = "shipped://sar_xs"
train.output_dir = "output/cmu/mmovseg_xs_ablation_clip_sar"
