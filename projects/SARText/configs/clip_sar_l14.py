"""Stage 2: the CLIP ViT-L/14 of stage 1 goes on with captioned SAR images.

    tools/train_net.py --config-file projects/SARText/configs/clip_sar_l14.py --num-gpus 8

The recipe is SARVLM's (an independent project with the same stages; the authors of SAR-TEXT state none): 10 epochs of
128 images on each of 8 GPUs, rate 5e-5. Its warm-up of 1,000 steps is for 1M pairs; here it is a tenth of the steps.
The batch of 1,024 is that of all GPUs together; without `--num-gpus` one would have to hold it.
Steps are for HRSID, the data of the config: 10 * images / 1,024 for others (1,330 for the 136,584 of SAR-TEXT).
"""

from mmovseg.config import get_config

model = get_config("projects/SARText/configs/common/models_l14.py").clip_sar
dataloader = get_config("projects/SARText/configs/common/data_l14.py").sar
_recipe = get_config("projects/SARText/configs/common/recipe_l14.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))

model.weights = "output/sartext/clip_optical_l14/model_final.safetensors"
dataloader.train.batch_size = 1024
optimizer.base_lr = 5e-5
optimizer.weight_decay = 0.01
lr_multiplier.warmup_iters = 4
train.max_iter = 36  # 36 it * 1,024 im/it / 3,642 im = 10 epochs
train.output_dir = "output/sartext/clip_sar_l14"
