"""MM-OVSeg as its authors released it, ViT-B/16, for their converted checkpoints and their data as they see it.

Evaluation: `--eval-only train.init_checkpoint=<converted>`. For another data set than PIE-cloud, choose it as
`configs/tables/table1_released.json` does. Training follows the release, which is not the paper: 80k iterations, CLIP
at 0.01 of the base rate.
"""

from mmovseg.config import get_config

model = get_config("common/models/released_vitb16.py").model
dataloader = get_config("common/data/released.py").dataloader
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

optimizer.base_lr = 2.5e-4
optimizer.lr_multipliers = {"clip": 0.01}
train.max_iter = 80_000
train.clip_grad.enabled = True
train.clip_grad.max_norm = 0.01
train.amp.enabled = False
train.output_dir = "output/released_vitb16"
