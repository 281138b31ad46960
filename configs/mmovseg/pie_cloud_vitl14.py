"""Setting 1 of the paper's Table 1, PIE-cloud -> PIE-cloud, ViT-L/14 (appendix D): as ViT-B/16, batch 4."""

from mmovseg.config import get_config

_base = get_config("mmovseg/pie_cloud_vitb16.py")
dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("dataloader", "train", "optimizer", "lr_multiplier")
)
model = get_config("common/models/mmovseg_vitl14.py").model

_sar8 = get_config("common/models/sar8.py")
model.sar_encoder.in_chans = 3
model.sar_norm = _sar8.sar_norm
model.input_contract.sar = _sar8.sar_contract

dataloader.train.batch_size = 4
train.output_dir = "output/pie_cloud_vitl14"
