"""Setting 5 of the paper's Table 1, PIE-clean -> PIE-clean, ViT-L/14."""

from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets

_base = get_config("mmovseg/pie_cloud_vitl14.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
choose_sets(dataloader, train="pie_clean", test="pie_clean")
train.output_dir = "output/pie_clean_vitl14"
