"""Setting 6 of the paper's Table 1, DDHR-SK -> DDHR-CH, ViT-B/16. The class lists differ in order."""

from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets

_base = get_config("mmovseg/pie_cloud_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
choose_sets(dataloader, train="ddhr_sk", test="ddhr_ch")
train.output_dir = "output/ddhr_sk_to_ch_vitb16"
