"""Linear probe on DFC2020 (Sentinel-1 and -2), HiViT-B, 10 shots a class.

``<datasets>/dfc20`` holds ``{test,val}.txt``, ``RGB/`` (13 bands) and ``SAR/`` (VV, VH) as 8-bit ``.npy``, ``Label/``
(PNG, 0..7). The release trains on ``test`` and evaluates on ``val``: the official parts have these names for historical
reasons, and ``test`` is the larger one.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.projects.codemae.data.arrays import ArrayReader
from mmovseg.projects.codemae.data.classification import load_listed_pairs
from mmovseg.projects.codemae.data.labels import MultiHot, RasterLabels, multi_hot_classes

_base = get_config("projects/CoDeMAE/configs/common/linear_probe.py")
_data = get_config("projects/CoDeMAE/configs/common/classification_data.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
_vocabulary = L(vocabulary_from_names)(
    names="forest, shrubland, grassland, wetland, cropland, urban, barren, water"  # for display; labels are numbers
)
_labels = L(MultiHot)(vocabulary=_vocabulary, min_share=0.1)

model.update(_data.norms.dfc20)
for _part, _split in ((dataloader.train.dataset, "test"), (dataloader.test, "val")):
    _part.dataset = L(load_listed_pairs)(folder="dfc20", split=_split, labels="raster", suffix=".npy")
dataloader.train.dataset.labels = L(RasterLabels)(rule=_labels, reader=L(ArrayReader)())
for _part in (dataloader.train, dataloader.test):
    _part.mapper.reader, _part.mapper.labels = L(ArrayReader)(), _labels
dataloader.evaluator.dataset_name = "dfc20_val"
dataloader.evaluator.classes = L(multi_hot_classes)(vocabulary=_vocabulary)
dataloader.evaluator.multi_label = True
train.output_dir = "output/codemae/linear_probe_dfc20_b_${model.sensor}"
