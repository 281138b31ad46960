"""Stage 2 in small: the CLIP of stage 1 goes on with SAR images.

    tools/train_net.py --config-file projects/SARText/configs/clip_sar_xs.py

Direct transfer: model.weights=output/sartext/clip_natural_xs/model_final.safetensors train.max_iter=360. SAR alone:
model.weights=null train.max_iter=720. `tables/transfer.json` compares them.
"""

from mmovseg.config import get_config

_recipe = get_config("projects/SARText/configs/common/recipe_xs.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))
model = get_config("projects/SARText/configs/common/models_xs.py").clip_sar
dataloader = get_config("projects/SARText/configs/common/data_stages.py").sar

model.weights = "output/sartext/clip_optical_xs/model_final.safetensors"
train.max_iter = 180  # 180 it * 32 im/it / 1000 im = 5.8 epochs
train.output_dir = "output/sartext/clip_sar_xs"
