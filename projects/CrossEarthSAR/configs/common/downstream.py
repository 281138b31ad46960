"""Downstream training: the head alone, over a frozen encoder. A leaf sets classes and data.

Paper: 40,000 steps of 2 images, rate 1e-4; the rest as in Rein, without warm-up and clipping. The last weights are
reported, never the best on the test images. Without random crops, model.feature_cache_mb=<memory> runs the encoder
once an image and version.
"""

from mmovseg.config import get_config

model = get_config("projects/CrossEarthSAR/configs/common/segmentor.py").model
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").poly

model.encoder.freeze = True
model.encoder.weights = "output/crossearth/cpt_l/model_final.safetensors"

optimizer.base_lr = 1e-4
optimizer.weight_decay = 0.05
optimizer.no_decay = ["*level_embed"]
train.max_iter = 40_000
train.amp.enabled = True
train.checkpoint.period = 10_000
train.output_dir = "output/crossearth/downstream_l"
