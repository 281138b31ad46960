"""Setting 4 of the paper's Table 1, OEM-thin -> OEM-thin, ViT-B/16."""

from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets

_base = get_config("mmovseg/pie_cloud_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
choose_sets(dataloader, train="oem_thin", test="oem_thin")
train.output_dir = "output/oem_thin_vitb16"
