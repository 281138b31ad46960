"""Setting 3 of the paper's Table 1, OEM-thick -> OEM-thick, ViT-L/14."""

from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets

_base = get_config("mmovseg/pie_cloud_vitl14.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
choose_sets(dataloader, train="oem_thick", test="oem_thick")
train.output_dir = "output/oem_thick_vitl14"
