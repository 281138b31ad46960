"""MM-OVSeg XS without CMU and DEF (Table 3): CLIP alone on optical images, at the budget of the ablations."""

from mmovseg.config import get_config

_base = get_config("miniearth/mmovseg_xs_clip_only.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

train.max_iter = 150  # 150 it * 16 im/it / 4000 im = 0.6 epochs
train.output_dir = "output/cmu/mmovseg_xs_ablation_clip_only"
