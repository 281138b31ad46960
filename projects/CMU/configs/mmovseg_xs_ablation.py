"""MM-OVSeg XS at the budget of the ablations: half the steps of `miniearth/mmovseg_xs.py`, all else equal."""

from mmovseg.config import get_config

_base = get_config("miniearth/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

train.max_iter = 150  # 150 it * 16 im/it / 4000 im = 0.6 epochs
train.output_dir = "output/cmu/mmovseg_xs_ablation"
