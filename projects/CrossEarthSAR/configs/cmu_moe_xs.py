"""CMU for MiniEarth with a mixture of experts as the student; otherwise `projects/CMU/configs/cmu_xs.py`."""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/cmu_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.student = get_config("projects/CrossEarthSAR/configs/common/encoders.py").moe_xs_db
model.student.weights = "clip:shipped://clip_xs"
train.output_dir = "output/crossearth/cmu_moe_xs"
