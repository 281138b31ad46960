"""CoDe-MAE on MiniEarth: reconstruction, distillation, conditioned contrast and cross-modal reconstruction.

`mae_xs.py` is the same without the last three.
"""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/common/pretrain_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
