"""A SAR CLIP of the architecture of MM-OVSeg's XS models: their shipped CLIP goes on with SAR images and captions.

    tools/train_net.py --config-file projects/SARText/configs/clip_sar_mmovseg_xs.py
    tools/export_weights.py --checkpoint output/sartext/clip_sar_mmovseg_xs/model_final.safetensors \
        --part model --output output/sartext/clip_sar_mmovseg_xs.safetensors

`OpenCLIPEncoder` (mmovseg/modeling/clip.py) reads the second file as its `weights`. Images are those of MM-OVSeg's XS
models, in training and test.
"""

from mmovseg.config import get_config

_stage = get_config("projects/SARText/configs/clip_sar_xs.py")
_xs = get_config("common/models/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _stage[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.architecture = _xs.clip_architecture
model.weights = "shipped://clip_xs"
# The second tower alone learns: the texts stay where MM-OVSeg's other weights know them.
model.locked = ["text"]

for _loader, _name in ((dataloader.train, "miniearth_train"), (dataloader.test, "miniearth_val")):
    _loader.dataset = get_config("common/data/miniearth.py").dataloader.train.dataset
    _loader.dataset.name = _name
dataloader.evaluator.dataset_name = "miniearth_val"
train.max_iter = 240  # 240 it * 32 im/it / 4000 im = 1.9 epochs
train.output_dir = "output/sartext/clip_sar_mmovseg_xs"
