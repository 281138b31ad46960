"""Stage 2: the CoCa ViT-L/14 of stage 1 goes on with captioned SAR images.

    tools/train_net.py --config-file projects/SARText/configs/coca_sar_l14.py --num-gpus 8

The recipe is SARVLM's (an independent project with the same stages; the authors of SAR-TEXT state none, but that a
checkpoint of theirs is called `epoch_3`): 10 epochs of 64 images, rate 1e-5, both losses with weight 1.
A batch is that of all GPUs together: 8 on each of 8, or 64 on one without `--num-gpus`. Steps are for HRSID, the data
of the config: 10 * images / 64 for others (21,341 for the 136,584 of SAR-TEXT), and warm-up a tenth, 1,000 at most.
"""

from mmovseg.config import get_config

model = get_config("projects/SARText/configs/common/models_l14.py").coca_sar
dataloader = get_config("projects/SARText/configs/common/data_l14.py").sar
_recipe = get_config("projects/SARText/configs/common/recipe_l14.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))

model.weights = "output/sartext/coca_optical_l14/model_final.safetensors"
dataloader.train.batch_size = 64
optimizer.base_lr = 1e-5
optimizer.weight_decay = 0.1
lr_multiplier.warmup_iters = 57
train.max_iter = 569  # 569 it * 64 im/it / 3,642 im = 10 epochs
train.output_dir = "output/sartext/coca_sar_l14"
