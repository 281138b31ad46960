"""CMU for the XS models with L1 between unit-length patches (Table 4)."""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/cmu_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.loss_weights = {"l1": 1.0}
train.output_dir = "output/cmu/xs_l1"
