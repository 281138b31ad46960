"""Stage 1: LAION's CoCa ViT-L/14 goes on with captioned optical remote sensing images.

    tools/train_net.py --config-file projects/SARText/configs/coca_optical_l14.py --num-gpus 8

The recipe is SARVLM's (an independent project with the same stages; the authors of SAR-TEXT state none): 10 epochs of
64 images, rate 1e-5, both losses with weight 1. Warm-up: a tenth of the steps, where SARVLM's is 1,000 of 200,000.
A batch is that of all GPUs together: 8 on each of 8, or 64 on one without `--num-gpus`.
"""

from mmovseg.config import get_config

model = get_config("projects/SARText/configs/common/models_l14.py").coca_optical
dataloader = get_config("projects/SARText/configs/common/data_l14.py").optical
_recipe = get_config("projects/SARText/configs/common/recipe_l14.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))

dataloader.train.batch_size = 64
optimizer.base_lr = 1e-5
optimizer.weight_decay = 0.1
lr_multiplier.warmup_iters = 137
train.max_iter = 1365  # 1,365 it * 64 im/it / 8,734 im = 10 epochs
train.output_dir = "output/sartext/coca_optical_l14"
