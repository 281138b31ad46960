"""Linear probe on MiniEarth scenes: which classes cover at least a tenth of the image, from 10 shots a class.

`model.encoder.weights=<pretraining run>` is what it is for; `model.sensor=optical` or `both` reads the other raster or
both. `dataloader.train.dataset.protocol=balanced` sees to it that every class is shown.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets import get_dataset
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.projects.codemae.data.labels import MultiHot, RasterLabels, multi_hot_classes

_base = get_config("projects/CoDeMAE/configs/common/linear_probe.py")
_xs = get_config("common/models/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
_vocabulary = L(get_vocabulary)(dataset="miniearth")
_labels = L(MultiHot)(vocabulary=_vocabulary, min_share=0.1)

model.encoder = get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_xs
model.encoder.pyramid_dim = None
model.optical_norm, model.sar_norm, model.input_contract = _xs.optical_norm, _xs.sar_norm, _xs.input_contract

dataloader.train.dataset.dataset = L(get_dataset)(name="miniearth_train")
dataloader.train.dataset.labels = L(RasterLabels)(rule=_labels, reader=L(MiniEarthReader)())
dataloader.test.dataset = L(get_dataset)(name="miniearth_test")
for _part in (dataloader.train, dataloader.test):
    _part.mapper.reader, _part.mapper.labels, _part.mapper.geometry = L(MiniEarthReader)(), _labels, []
dataloader.evaluator.dataset_name = "miniearth_test"
dataloader.evaluator.classes = L(multi_hot_classes)(vocabulary=_vocabulary)
dataloader.evaluator.multi_label = True
train.output_dir = "output/codemae/linear_probe_miniearth_xs_${model.sensor}"
