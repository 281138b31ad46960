"""Stage 1 in small: the CLIP of stage 0 goes on with airborne optical images of another region.

    tools/train_net.py --config-file projects/SARText/configs/clip_optical_xs.py

Half of the steps after stage 0; the other half are those of stage 2.
"""

from mmovseg.config import get_config

_recipe = get_config("projects/SARText/configs/common/recipe_xs.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))
model = get_config("projects/SARText/configs/common/models_xs.py").clip_optical
dataloader = get_config("projects/SARText/configs/common/data_stages.py").optical

model.weights = "output/sartext/clip_natural_xs/model_final.safetensors"
train.max_iter = 180  # 180 it * 32 im/it / 2000 im = 2.9 epochs
train.output_dir = "output/sartext/clip_optical_xs"
