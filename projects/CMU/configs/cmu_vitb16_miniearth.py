"""CMU with the paper's recipe, ViT-B/16 on MiniEarth scenes of 256 px: a stand-in that needs no data.

Its encoder fits `configs/mmovseg/mmovseg_vitb16.py`, which reads the same SAR: VV and VH in dB.
"""

from mmovseg.config import get_config

model = get_config("projects/CMU/configs/common/aligner_vitb16.py").model
_base = get_config("projects/CMU/configs/cmu_vitb16.py")
train, optimizer, lr_multiplier = (_base[key] for key in ("train", "optimizer", "lr_multiplier"))
dataloader = get_config("projects/CMU/configs/common/encoder_eval.py").dataloader
dataloader.train = get_config("common/data/miniearth.py").dataloader.train

_datasets = (dataloader.train.dataset, dataloader.test.dataset.fit, dataloader.test.dataset.test)
for _dataset in (*_datasets, dataloader.evaluator.fit_dataset):
    _dataset.size = 256
dataloader.train.mapper.clouds = None
dataloader.train.mapper.with_clear = True
dataloader.train.batch_size = 8
dataloader.train.num_workers = 4
dataloader.test.batch_size = 4
train.output_dir = "output/cmu/vitb16_miniearth"
