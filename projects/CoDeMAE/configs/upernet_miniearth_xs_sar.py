"""As `upernet_miniearth_xs.py`, from SAR."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/upernet_miniearth_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.modality = "sar"
model.optical_norm, model.sar_norm = None, get_config("common/models/mmovseg_xs.py").sar_norm
for _owner in (dataloader.train.mapper, dataloader.test.mapper, dataloader.evaluator):
    _owner.modality = "sar"
train.output_dir = "output/codemae/upernet_xs_sar"
