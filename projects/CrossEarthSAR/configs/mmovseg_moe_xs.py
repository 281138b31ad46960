"""MM-OVSeg XS whose SAR encoder is a mixture of experts, started as a copy of the shipped one and trained along.

With the weights of `cmu_moe_xs.py` (`model.sar_encoder.weights=<file>`) it can stay frozen as the dense one does
(`model.sar_encoder.freeze=true`).
"""

from mmovseg.config import get_config

_base = get_config("miniearth/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.sar_encoder = get_config("projects/CrossEarthSAR/configs/common/encoders.py").moe_xs_db
optimizer.lr_multipliers = {"clip": 0.05, "sar_encoder": 0.05}
train.output_dir = "output/crossearth/mmovseg_moe_xs"
