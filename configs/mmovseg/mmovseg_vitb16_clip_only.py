"""Baseline of Table 3, 'w/o CMU&DEF': optical images, CLIP's similarity alone, no dense encoder."""

from mmovseg.config import get_config

_base = get_config("mmovseg/mmovseg_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.optical_encoder = model.sar_encoder = model.sar_norm = None
model.modality = "optical"
dataloader.train.mapper.modality = dataloader.test.mapper.modality = dataloader.evaluator.modality = "optical"
train.output_dir = "output/mmovseg_vitb16_clip_only"
