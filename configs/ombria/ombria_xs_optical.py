"""Baseline: as ombria_xs, trained and tested without SAR."""

from mmovseg.config import get_config

_base = get_config("ombria/ombria_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.sar_encoder = model.sar_norm = None
model.modality = "optical"
dataloader.train.mapper.modality = dataloader.test.mapper.modality = dataloader.evaluator.modality = "optical"
train.output_dir = "output/ombria/ombria_xs_optical"
