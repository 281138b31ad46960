"""MM-OVSeg as its authors released it, ViT-L/14: as ViT-B/16, batch 4."""

from mmovseg.config import get_config

_base = get_config("mmovseg/released_vitb16.py")
dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("dataloader", "train", "optimizer", "lr_multiplier")
)
model = get_config("common/models/released_vitl14.py").model

dataloader.train.batch_size = 4
train.output_dir = "output/released_vitl14"
