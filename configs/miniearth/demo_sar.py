"""What `make demo` trains and tests: mmovseg_xs_sar on 250 test scenes."""

from mmovseg.config import get_config

_base = get_config("miniearth/mmovseg_xs_sar.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
dataloader.test.dataset.num_scenes = 250
train.output_dir = "output/demo/sar"
