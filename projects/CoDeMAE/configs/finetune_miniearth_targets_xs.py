"""Fine-tuning of the XS encoder on MiniEarth chips of aircraft, ships and vehicles, 40 shots a class."""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.miniearth.chips import load_miniearth_targets

_base = get_config("projects/CoDeMAE/configs/finetune_mstar_xs.py")
_xs = get_config("common/models/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.encoder.in_chans = dict(optical=3, sar=2)
model.optical_norm, model.sar_norm, model.input_contract = _xs.optical_norm, _xs.sar_norm, _xs.input_contract

for _part, _split in ((dataloader.train.dataset, "train"), (dataloader.test, "test")):
    _part.dataset = L(load_miniearth_targets)(split=_split, sensor="${model.sensor}")
for _part in (dataloader.train, dataloader.test):
    _part.mapper.reader, _part.mapper.geometry = L(MiniEarthReader)(), []
dataloader.evaluator.dataset_name = "miniearth_targets_test"
dataloader.evaluator.classes = ["aircraft", "ship", "vehicle"]
train.max_iter = 144  # 60 epochs * 3 classes * 40 images / 50
train.eval_period = 12
lr_multiplier.warmup_iters = 5
train.output_dir = "output/codemae/finetune_miniearth_targets_xs"
