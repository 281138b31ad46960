"""The control of `faster_rcnn_miniearth_xs.py`: the same budget from random weights."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/faster_rcnn_miniearth_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.backbone.weights = None
train.output_dir = "output/codemae/faster_rcnn_xs_scratch"
