"""As `change_yellow_b_xs.py` on ``yellow_C``: upper half and lower half."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/change_yellow_b_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
for _loader in (dataloader.train, dataloader.test):
    _loader.dataset.update(scene="yellow_C", axis="rows", strips=2)
model.before_norm.update(mean=[-6.5, -6.5], std=[7.2, 7.2], clip=[-30.0, 5.0])
model.after_norm = model.before_norm
dataloader.evaluator.dataset_name = "yellow_C_test"
train.output_dir = "output/codemae/change_yellow_c_xs"
