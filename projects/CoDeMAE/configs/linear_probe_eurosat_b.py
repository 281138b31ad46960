"""Linear probe on EuroSAT with Sentinel-1 beside it, HiViT-B, 10 shots a class, one class an image.

``<datasets>/eurosat_sar`` holds ``{train,test}.txt``, ``RGB/`` (13 bands) and ``SAR/`` (VV, VH) as 8-bit ``.npy``; the
class is what the file name starts with (``Forest_12``).
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.codemae.data.arrays import ArrayReader
from mmovseg.projects.codemae.data.classification import load_listed_pairs

_base = get_config("projects/CoDeMAE/configs/common/linear_probe.py")
_data = get_config("projects/CoDeMAE/configs/common/classification_data.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.update(_data.norms.eurosat)
for _part, _split in ((dataloader.train.dataset, "train"), (dataloader.test, "test")):
    _part.dataset = L(load_listed_pairs)(
        folder="eurosat_sar",
        split=_split,
        labels="prefix",
        suffix=".npy",
        classes="${dataloader.evaluator.classes}",
    )
for _part in (dataloader.train, dataloader.test):
    _part.mapper.reader = L(ArrayReader)()
dataloader.evaluator.dataset_name = "eurosat_sar_test"
dataloader.evaluator.classes = [
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
]
train.output_dir = "output/codemae/linear_probe_eurosat_b_${model.sensor}"
