"""As `gaps_xs.py`, with a linear head: what the frozen features say without any help."""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/gaps_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.head = get_config("projects/CrossEarthSAR/configs/common/head.py").linear
model.head.in_features = ["block1", "block2", "block3", "block4"]  # as many as Mask2Former reads
optimizer.no_decay = []
train.output_dir = "output/crossearth/gaps_linear_xs"
