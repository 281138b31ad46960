"""MM-OVSeg XS without captions of SAR: the shipped recipe at half of its steps, which `mmovseg_xs_*.py` are held to.

tools/train_net.py --config-file projects/SARText/configs/mmovseg_xs.py
"""

from mmovseg.config import get_config

_base = get_config("miniearth/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

train.max_iter = 150  # 150 it * 16 im/it / 4000 im = 0.6 epochs
train.output_dir = "output/sartext/mmovseg_xs"
