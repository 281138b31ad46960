"""Stage 1: OpenAI's CLIP ViT-L/14 goes on with captioned optical remote sensing images.

    tools/train_net.py --config-file projects/SARText/configs/clip_optical_l14.py --num-gpus 8

No recipe of this step is published; rate and decay are those of CoCa's, from SARVLM, an independent project with the
same stages. Warm-up: a tenth of the steps, where SARVLM's 1,000 would be longer than the training. A batch is that of
all GPUs together: 16 images on each of 8.
"""

from mmovseg.config import get_config

model = get_config("projects/SARText/configs/common/models_l14.py").clip_optical
dataloader = get_config("projects/SARText/configs/common/data_l14.py").optical
_recipe = get_config("projects/SARText/configs/common/recipe_l14.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))

dataloader.train.batch_size = 128
optimizer.base_lr = 1e-5
optimizer.weight_decay = 0.1
lr_multiplier.warmup_iters = 68
train.max_iter = 682  # 682 it * 128 im/it / 8,734 im = 10 epochs
train.output_dir = "output/sartext/clip_optical_l14"
