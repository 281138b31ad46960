"""MM-OVSeg XS on OMBRIA: flooded or dry, from both dates of both sensors."""

from mmovseg.config import get_config

model = get_config("common/models/ombria_xs.py").model
dataloader = get_config("common/data/ombria.py").dataloader
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

model.clip.finetune = "full"
model.optical_encoder.freeze = False
model.sar_encoder.freeze = False

optimizer.base_lr = 1e-3
train.max_iter = 300
train.clip_grad.enabled = True
train.output_dir = "output/ombria/ombria_xs"
lr_multiplier.warmup_iters = 20
