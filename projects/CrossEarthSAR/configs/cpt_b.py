"""Continued pretraining of CrossEarth-SAR-B: `cpt_l.py` with a smaller encoder.

tools/train_net.py --config-file projects/CrossEarthSAR/configs/cpt_b.py --num-gpus 8
"""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/cpt_l.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.encoder = get_config("projects/CrossEarthSAR/configs/common/encoders.py").moe_b
train.output_dir = "output/crossearth/cpt_b"
