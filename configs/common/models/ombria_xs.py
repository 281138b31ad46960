"""XS models for OMBRIA: the architecture of the MiniEarth ones, two dates of false-colour optical and of 8-bit SAR."""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.layers.norm import PixelNorm

model = get_config("common/models/mmovseg_xs.py").model

# Channel statistics of 160 places; not a choice that could favour a model.
_before, _after = ((70.5, 78.3, 31.0), (27.4, 26.1, 20.1)), ((45.2, 62.1, 43.5), (34.4, 38.2, 39.3))
_bands = tuple(f"{band} {date}" for date in ("before", "after") for band in ("SWIR", "NIR", "green"))
optical_contract = L(ModalityContract)(
    sensor="Sentinel-2 as published in OMBRIA",
    bands=_bands,
    unit="uint8",
    mean=_before[0] + _after[0],
    std=_before[1] + _after[1],
)
sar_contract = L(ModalityContract)(
    sensor="Sentinel-1 as published in OMBRIA",
    bands=("VV before", "VV after"),
    unit="amplitude8",
    mean=(136.5, 152.0),
    std=(49.4, 51.5),
    clip=(0.0, 255.0),
)

# CLIP reads the date after the flood, the dense encoders read both.
model.clip_bands = (3, 4, 5)
model.clip_norm = L(PixelNorm)(mean=_after[0], std=_after[1])
model.optical_norm = L(PixelNorm)(mean=optical_contract.mean, std=optical_contract.std)
model.sar_norm = L(PixelNorm)(mean=sar_contract.mean, std=sar_contract.std, clip=sar_contract.clip)
model.optical_encoder.in_chans = 6
model.sar_encoder.in_chans = 2
model.input_contract = L(InputContract)(optical=optical_contract, sar=sar_contract, gsd_m=(10.0, 10.0), train_size=64)
