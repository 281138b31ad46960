"""Setting 1 of the paper's Table 1, PIE-cloud -> PIE-cloud, ViT-B/16: the paper's recipe (Sec. 4.1.2) on 8-bit pairs.

The other five settings and the ViT-L/14 are stated as changes to this.
"""

from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets

_base = get_config("mmovseg/mmovseg_vitb16.py")  # 120k iterations, batch 8, rates and clipping
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
dataloader = get_config("common/data/pairs8.py").dataloader

_sar8 = get_config("common/models/sar8.py")
model.sar_encoder.in_chans = 3
model.sar_norm = _sar8.sar_norm
model.input_contract.sar = _sar8.sar_contract

choose_sets(dataloader, train="pie_cloud", test="pie_cloud")
train.output_dir = "output/pie_cloud_vitb16"
