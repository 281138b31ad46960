"""SpaceNet 6, building or not, ViT-B/16: the paper's recipe (Sec. 4.1.2) on airborne X-band SAR; no result of ours."""

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
    _part.mapper.reader = L(FileReader)(sar_polarisations_in=("HH", "HV", "VH", "VV"), sar_polarisations=("VV", "VH"))
# dB with an unknown offset, another for each polarisation. Mean and deviation as GEO-Bench-2 publishes them for the
# third and fourth band; they seem to count pixels without data, as 0.
model.input_contract.sar = L(ModalityContract)(
    sensor="Capella, airborne X-band, uncalibrated", bands=("VV", "VH"), unit="db", mean=(22.7, 29.7), std=(11.7, 13.5)
)
model.sar_norm = L(PixelNorm)(mean=model.input_contract.sar.mean, std=model.input_contract.sar.std)

choose_sets(dataloader, train="spacenet6", test="spacenet6")
train.output_dir = "output/spacenet6_vitb16"
