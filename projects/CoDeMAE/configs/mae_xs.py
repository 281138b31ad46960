"""A plain masked autoencoder of both sensors on MiniEarth, the baseline of `codemae_xs.py` with the same budget."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/codemae_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.distillation = model.contrast = model.cross = None
train.output_dir = "output/codemae/mae_xs"
