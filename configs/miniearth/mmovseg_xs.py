"""Step 4: MM-OVSeg XS under varied clouds, trained on pixels of the seen classes only."""

from mmovseg.config import get_config

model = get_config("common/models/mmovseg_xs.py").model
dataloader = get_config("common/data/miniearth.py").dataloader
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

model.clip.weights = "shipped://clip_xs"
model.optical_encoder.weights = "shipped://dense_xs"
model.sar_encoder.weights = "shipped://sar_xs"

# CLIP moves more slowly than the new layers. The paper's factor is 0.008 (2e-6 against 2.5e-4) over 120k iterations; in
# 300 iterations that would leave CLIP where it is.
optimizer.base_lr = 3e-3
optimizer.lr_multipliers = {"clip": 0.05}
train.max_iter = 300  # 300 it * 16 im/it / 4000 im = 1.2 epochs
train.clip_grad.enabled = True
train.output_dir = "output/miniearth/mmovseg_xs"
lr_multiplier.warmup_iters = 20
