"""Change between two SAR images, one embedding for both: the left half of ``yellow_B`` trains, the right half tests."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/change_hetero_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
for _loader in (dataloader.train, dataloader.test):
    _loader.dataset.update(scene="yellow_B", axis="columns", strips=2)
    _loader.mapper.modality = "sar"
dataloader.train.mapper.sar_photometric.dates = 2
model.before = model.after = "sar"
model.before_norm.update(mean=[-12.6, -12.6], std=[6.2, 6.2], clip=[-30.0, 5.0])
model.after_norm = model.before_norm
dataloader.evaluator.update(dataset_name="yellow_B_test", before="sar", after="sar", modality="sar")
train.output_dir = "output/codemae/change_yellow_b_xs"
