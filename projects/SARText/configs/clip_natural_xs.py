"""Stage 0 in small: a CLIP from scratch, on clear optical images of a temperate region and their captions.

    tools/train_net.py --config-file projects/SARText/configs/clip_natural_xs.py

It stands for the public weights that real stages begin with.
"""

from mmovseg.config import get_config

_recipe = get_config("projects/SARText/configs/common/recipe_xs.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))
model = get_config("projects/SARText/configs/common/models_xs.py").clip_optical
dataloader = get_config("projects/SARText/configs/common/data_stages.py").natural

train.max_iter = 360  # 360 it * 32 im/it / 2000 im = 5.8 epochs
train.output_dir = "output/sartext/clip_natural_xs"
