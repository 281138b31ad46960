"""What the L-14 stages share: `train`, `optimizer`, `lr_multiplier`; a stage states batch, rate, decay and steps."""

from mmovseg.config import get_config

train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

optimizer.decay_biases = False
optimizer.betas = [0.9, 0.98]  # these and eps are open_clip's for vision transformers
optimizer.eps = 1e-6
optimizer.no_decay = ["*logit_scale"]
train.amp.enabled = True
train.clip_grad.enabled = True
