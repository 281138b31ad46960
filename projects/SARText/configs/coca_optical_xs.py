"""Stage 1 in small: the CoCa of stage 0 goes on with airborne optical images of another region.

    tools/train_net.py --config-file projects/SARText/configs/coca_optical_xs.py

Half of the steps after stage 0; the other half are those of stage 2.
"""

from mmovseg.config import get_config

_recipe = get_config("projects/SARText/configs/common/recipe_xs.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))
model = get_config("projects/SARText/configs/common/models_xs.py").coca_optical
dataloader = get_config("projects/SARText/configs/common/data_stages.py").optical

model.weights = "output/sartext/coca_natural_xs/model_final.safetensors"
dataloader.train.batch_size = 16  # an image costs twice that of the CLIP
train.max_iter = 150  # 150 it * 16 im/it / 2000 im = 1.2 epochs
train.output_dir = "output/sartext/coca_optical_xs"
