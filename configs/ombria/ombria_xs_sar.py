"""Baseline: as ombria_xs, trained and tested without optical images."""

from mmovseg.config import get_config

_base = get_config("ombria/ombria_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.optical_encoder = None
model.modality = "sar"
dataloader.train.mapper.modality = dataloader.test.mapper.modality = dataloader.evaluator.modality = "sar"
train.output_dir = "output/ombria/ombria_xs_sar"
