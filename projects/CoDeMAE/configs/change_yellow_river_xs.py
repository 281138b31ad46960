"""As `change_hetero_xs.py` on ``yellow_river``, whose optical image is grey: upper half and lower half."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/change_hetero_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
for _loader in (dataloader.train, dataloader.test):
    _loader.dataset.scene, _loader.dataset.strips = "yellow_river", 2
model.before_norm.update(mean=[-6.5, -6.5], std=[7.3, 7.3], clip=[-30.0, 5.0])
model.after_norm.update(mean=[115.0, 115.0, 115.0], std=[45.9, 45.9, 45.9])
dataloader.evaluator.dataset_name = "yellow_river_test"
train.output_dir = "output/codemae/change_yellow_river_xs"
