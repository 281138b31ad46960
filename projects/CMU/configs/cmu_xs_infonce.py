"""CMU for the XS models with InfoNCE alone, the loss of the paper (Sec. 3.2.2)."""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/cmu_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.loss_weights = {"infonce": 1.0}
train.output_dir = "output/cmu/xs_infonce"
