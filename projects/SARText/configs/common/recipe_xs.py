"""How the XS stages are trained: `train`, `optimizer`, `lr_multiplier`; a stage states its steps."""

from mmovseg.config import get_config

train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

optimizer.base_lr = 1e-3
optimizer.weight_decay = 0.05
optimizer.no_decay = ["*logit_scale"]
lr_multiplier.warmup_iters = 20
train.clip_grad.enabled = True
train.log_period = 50
