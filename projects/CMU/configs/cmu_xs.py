"""CMU for the XS models on MiniEarth, at the budget of the ablations; `sar_xs` was made so with three times the steps.

`--eval-only` measures an encoder by itself: `model.student.weights=<file>` for one that is stored, or
`train.init_checkpoint=<file>` for a run of this config.
"""

from mmovseg.config import get_config

_base = get_config("miniearth/sar_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
dataloader.update(get_config("projects/CMU/configs/common/encoder_eval.py").dataloader)

train.max_iter = 300  # 300 it * 32 im/it / 4000 im = 2.4 epochs
train.eval_period = -1
train.output_dir = "output/cmu/xs"
