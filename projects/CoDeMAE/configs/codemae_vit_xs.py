"""The objectives of `codemae_xs.py` over a plain timm vision transformer: the method is not tied to one encoder."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/codemae_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.encoder = get_config("projects/CoDeMAE/configs/common/encoders.py").timm_vit_xs
train.output_dir = "output/codemae/vit_xs"
