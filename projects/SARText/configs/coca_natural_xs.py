"""Stage 0 in small: a CoCa from scratch, on clear optical images of a temperate region and their captions.

    tools/train_net.py --config-file projects/SARText/configs/coca_natural_xs.py

It stands for the public weights that real stages begin with.
"""

from mmovseg.config import get_config

_recipe = get_config("projects/SARText/configs/common/recipe_xs.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))
model = get_config("projects/SARText/configs/common/models_xs.py").coca_optical
dataloader = get_config("projects/SARText/configs/common/data_stages.py").natural

dataloader.train.batch_size = 16  # an image costs twice that of the CLIP
train.max_iter = 300  # 300 it * 16 im/it / 2000 im = 2.4 epochs
train.output_dir = "output/sartext/coca_natural_xs"
