"""Stage 2 in small: the CoCa of stage 1 goes on with SAR images.

    tools/train_net.py --config-file projects/SARText/configs/coca_sar_xs.py

Direct transfer: model.weights=output/sartext/coca_natural_xs/model_final.safetensors train.max_iter=300. SAR alone:
model.weights=null train.max_iter=600. `tables/captioning.json` compares them.
"""

from mmovseg.config import get_config

_recipe = get_config("projects/SARText/configs/common/recipe_xs.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))
model = get_config("projects/SARText/configs/common/models_xs.py").coca_sar
dataloader = get_config("projects/SARText/configs/common/data_stages.py").sar

model.weights = "output/sartext/coca_optical_xs/model_final.safetensors"
dataloader.train.batch_size = 16  # an image costs twice that of the CLIP
train.max_iter = 150  # 150 it * 16 im/it / 1000 im = 2.4 epochs
train.output_dir = "output/sartext/coca_sar_xs"
