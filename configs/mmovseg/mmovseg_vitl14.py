"""MM-OVSeg ViT-L/14 (paper, appendix D): as ViT-B/16, batch 4."""

from mmovseg.config import get_config

_base = get_config("mmovseg/mmovseg_vitb16.py")
dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("dataloader", "train", "optimizer", "lr_multiplier")
)
model = get_config("common/models/mmovseg_vitl14.py").model

dataloader.train.batch_size = 4
train.output_dir = "output/mmovseg_vitl14"
