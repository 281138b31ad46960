"""Linear probe on BigEarthNet (Sentinel-1 and -2), HiViT-B, 10 shots a class, 19 classes.

``<datasets>/ben`` holds ``{train,val}.txt``, ``RGB/`` (12 bands) and ``SAR/`` (VV, VH) as 8-bit ``.npy``, and
``Label/`` (``.npy``, one 0 or 1 a class). Class names are for display: the vectors have the order of the 19-class
nomenclature.
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

model.update(_data.norms.ben)
for _part, _split in ((dataloader.train.dataset, "train"), (dataloader.test, "val")):
    _part.dataset = L(load_listed_pairs)(folder="ben", split=_split, labels="vector", suffix=".npy")
for _part in (dataloader.train, dataloader.test):
    _part.mapper.reader = L(ArrayReader)()
dataloader.evaluator.dataset_name = "ben_val"
dataloader.evaluator.classes = [
    "urban fabric",
    "industrial or commercial units",
    "arable land",
    "permanent crops",
    "pastures",
    "complex cultivation patterns",
    "agriculture with natural vegetation",
    "agro-forestry",
    "broad-leaved forest",
    "coniferous forest",
    "mixed forest",
    "natural grassland and sparse vegetation",
    "moors, heathland and sclerophyllous vegetation",
    "transitional woodland, shrub",
    "beaches, dunes, sands",
    "inland wetlands",
    "coastal wetlands",
    "inland waters",
    "marine waters",
]
dataloader.evaluator.multi_label = True
train.output_dir = "output/codemae/linear_probe_ben_b_${model.sensor}"
