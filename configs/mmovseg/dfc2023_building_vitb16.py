"""DFC2023, building or not (track 2), ViT-B/16."""

from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets

_base = get_config("mmovseg/dfc2023_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
choose_sets(dataloader, train="dfc2023_building", test="dfc2023_building")
train.output_dir = "output/dfc2023_building_vitb16"
