"""Continued pretraining: everything trains, on many images with (pseudo-)labels. A leaf sets classes and data.

The paper has 18 epochs of 203,240 images, rate 3e-5, 16 GPUs and "batch size 4", which is taken as 4 a GPU: 4 in all
would be 914,580 steps. What it does not say is as in Rein. On several GPUs the parameters, gradients and AdamW state of
L (21 GB) are shared out with train.fsdp.enabled=true; model.encoder.checkpointing=true saves activations.
"""

from mmovseg.config import get_config

model = get_config("projects/CrossEarthSAR/configs/common/segmentor.py").model
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").poly

model.encoder.freeze = False

optimizer.base_lr = 3e-5  # of 1e-5, 3e-5, 6e-5 and 1e-4 the best in the paper
optimizer.weight_decay = 0.05
optimizer.no_decay = ["*level_embed", "*pos_embed", "*cls_token"]  # norms and queries are without decay anyway
train.max_iter = 57_161  # 57,161 it * 64 im/it / 203,240 im = 18 epochs
train.amp.enabled = True  # bfloat16; routers, pixel decoder and losses are float32 all the same
train.checkpoint.period = 5000
train.output_dir = "output/crossearth/cpt_l"
