"""Continued pretraining of CrossEarth-SAR-S: `cpt_l.py` with a smaller encoder.

tools/train_net.py --config-file projects/CrossEarthSAR/configs/cpt_s.py --num-gpus 8
"""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/cpt_l.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.encoder = get_config("projects/CrossEarthSAR/configs/common/encoders.py").moe_s
train.output_dir = "output/crossearth/cpt_s"
