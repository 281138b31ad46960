"""DDHR South Korea by UPerNet over HiViT-B: the benchmark of the paper's ablations (Table II), optical under clouds.

SAR instead: model.modality=sar dataloader.train.mapper.modality=sar dataloader.test.mapper.modality=sar
dataloader.evaluator.modality=sar; ``both`` in the four places reads both.

Of the paper's recipe only crop, batch, classes and epochs are known; the rate is that of the release's BRIGHT, the rest
that of its LoveDA.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets
from mmovseg.data.transforms import OpticalJitter, RandomCrop, RandomFlip, RandomRotate90
from mmovseg.data.vocabulary import closed_vocabulary

_base = get_config("projects/CoDeMAE/configs/common/upernet.py")
_norms = get_config("projects/CoDeMAE/configs/common/classification_data.py").norms.ddhr_sk
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))

model.vocabulary = L(closed_vocabulary)(dataset="ddhr_sk")
model.optical_norm, model.sar_norm = _norms.optical_norm, _norms.sar_norm

dataloader = get_config("common/data/pairs8.py").dataloader
choose_sets(dataloader, train="ddhr_sk", test="ddhr_sk")
for _owner in (dataloader.train.mapper, dataloader.test.mapper, dataloader.evaluator):
    _owner.vocabulary, _owner.modality = model.vocabulary, "optical"
dataloader.train.batch_size = 16
dataloader.train.mapper.geometry = [L(RandomCrop)(size=256), L(RandomFlip)(vertical=True), L(RandomRotate90)()]
dataloader.train.mapper.optical_photometric = L(OpticalJitter)()
dataloader.test.mapper.geometry = []
dataloader.test.batch_size = 8

optimizer.base_lr = 1e-4
train.max_iter = 57_900  # 57,900 it * 16 im/it / 3,087 im = 300 epochs
train.output_dir = "output/codemae/upernet_ddhr_sk_b"
