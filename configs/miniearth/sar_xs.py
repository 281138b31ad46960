"""Step 3 of the XS weights: the SAR encoder, aligned patch by patch to CLIP's tower on clear images (Sec. 3.2.2)."""

from mmovseg.config import get_config

_base = get_config("miniearth/dense_xs.py")
_models = get_config("common/models/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.student = _models.sar_encoder
model.student.weights = "clip:shipped://clip_xs"
model.student.freeze = False
model.student_norm = _models.sar_norm
model.student_view = "sar"

dataloader.train.mapper.modality = "both"
dataloader.train.mapper.clouds = None

train.max_iter = 900  # 900 it * 32 im/it / 4000 im = 7.2 epochs
train.output_dir = "output/zoo/sar_xs"
