"""Linear probe on WHU-OPT-SAR, HiViT-B, 10 shots a class: which classes cover at least a tenth of the image.

``<datasets>/whu_opt_sar_pairs`` holds ``{train,test}.txt``, ``RGB/``, ``SAR/`` and ``Label/`` (PNG, 0 = background,
which is no answer, then the seven classes). datasets/prepare_whu_opt_sar.py makes another set, without optical images.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.projects.codemae.data.classification import load_listed_pairs
from mmovseg.projects.codemae.data.labels import MultiHot, RasterLabels, multi_hot_classes

_base = get_config("projects/CoDeMAE/configs/common/linear_probe.py")
_data = get_config("projects/CoDeMAE/configs/common/classification_data.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
_vocabulary = L(vocabulary_from_names)(names="background, farmland, city, village, water, forest, road, others")
_labels = L(MultiHot)(vocabulary=_vocabulary, min_share=0.1, ignored=["background"])

model.update(_data.norms.whu)
dataloader.train.dataset.dataset = L(load_listed_pairs)(folder="whu_opt_sar_pairs", split="train", labels="raster")
dataloader.train.dataset.labels = L(RasterLabels)(rule=_labels, reader=_data.reader8)
dataloader.test.dataset = L(load_listed_pairs)(folder="whu_opt_sar_pairs", split="test", labels="raster")
dataloader.train.mapper.labels = dataloader.test.mapper.labels = _labels
dataloader.evaluator.dataset_name = "whu_opt_sar_test"
dataloader.evaluator.classes = L(multi_hot_classes)(vocabulary=_vocabulary, ignored=["background"])
dataloader.evaluator.multi_label = True
train.output_dir = "output/codemae/linear_probe_whu_b_${model.sensor}"
