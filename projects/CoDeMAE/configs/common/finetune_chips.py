"""Fine-tuning on SAR chips of targets, 40 shots (release): batch 50, 60 epochs, no augmentation, batch norm in front.

Chips are cut to the middle 128 pixels and enlarged to 224. The shots are balanced, and every `train.seed` has its own.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.transforms.centre_crop import CentreCrop, CubicResize

_base = get_config("projects/CoDeMAE/configs/common/finetune.py")
_data = get_config("projects/CoDeMAE/configs/common/classification_data.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.encoder.in_chans = dict(sar=3)
model.encoder.drop_path = 0.05
model.update(_data.norms.chips)
model.batch_norm = True

for _part in (dataloader.train, dataloader.test):
    _part.mapper.geometry = [L(CentreCrop)(size=128), L(CubicResize)(size=224)]
dataloader.train.dataset.shots = 40
dataloader.train.dataset.protocol = "balanced"
dataloader.train.batch_size = 50

optimizer.base_lr = 1e-3 * 50 / 256
train.max_iter = 480  # 60 epochs * 10 classes * 40 images / 50
train.eval_period = 40  # 5 epochs
lr_multiplier.warmup_iters = 16  # 2 epochs
lr_multiplier.end_factor = 1e-6 / optimizer.base_lr
train.output_dir = "output/codemae/finetune_chips"
