"""Linear probe on PIE-RGB-SAR, HiViT-B, 10 shots a class: which classes cover at least a tenth of the image.

Train and test are those of `datasets/prepare_pie.py`; the release has its own lists, which are not at hand.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets import get_dataset
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.projects.codemae.data.labels import MultiHot, RasterLabels, multi_hot_classes

_base = get_config("projects/CoDeMAE/configs/common/linear_probe.py")
_data = get_config("projects/CoDeMAE/configs/common/classification_data.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
_vocabulary = L(get_vocabulary)(dataset="pie")
_labels = L(MultiHot)(vocabulary=_vocabulary, min_share=0.1)

model.update(_data.norms.pie)
dataloader.train.dataset.dataset = L(get_dataset)(name="pie_clean_train")
dataloader.train.dataset.labels = L(RasterLabels)(rule=_labels, reader=_data.reader8)
dataloader.test.dataset = L(get_dataset)(name="pie_clean_val")
dataloader.train.mapper.labels = dataloader.test.mapper.labels = _labels
dataloader.evaluator.dataset_name = "pie_clean_val"
dataloader.evaluator.classes = L(multi_hot_classes)(vocabulary=_vocabulary)
dataloader.evaluator.multi_label = True
train.output_dir = "output/codemae/linear_probe_pie_b_${model.sensor}"
