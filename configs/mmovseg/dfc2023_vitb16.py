"""DFC2023, twelve roof types, ViT-B/16: the paper's recipe (Sec. 4.1.2) on one band of Gaofen-3; no result of ours."""

from mmovseg.checkpoint.contract import ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets
from mmovseg.data.io import FileReader
from mmovseg.layers.norm import PixelNorm

_base = get_config("mmovseg/mmovseg_vitb16.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
dataloader = get_config("common/data/pairs8.py").dataloader  # geometry and colours of training; SAR is other here

for _part in (dataloader.train, dataloader.test):
    _part.mapper.reader = L(FileReader)()
model.sar_encoder.in_chans = 1
# dB of an amplitude without calibration. No statistics are published in dB: a guess from those of 605 tiles by others,
# 0.03 to 11.9 with a mean of 0.18, which are -30 to 22 dB and, the mean itself, -15 dB.
model.input_contract.sar = L(ModalityContract)(
    sensor="Gaofen-3, C-band, uncalibrated", bands=("amplitude",), unit="db", mean=(-17.0,), std=(6.0,)
)
model.sar_norm = L(PixelNorm)(mean=model.input_contract.sar.mean, std=model.input_contract.sar.std)

choose_sets(dataloader, train="dfc2023", test="dfc2023")
train.output_dir = "output/dfc2023_vitb16"
