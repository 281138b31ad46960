"""The SAR side of models that read uncalibrated 8-bit SAR: what `common/data/pairs8.py` yields.

Normalised with ImageNet's constants, as a grey photograph would be: the stand-in filters are DINO's, which have seen
grey photographs so, and no statistics of these data sets are published. ViT-L/14 reads SAR with the same constants,
though its optical ones differ. An encoder of CMU has read every source by that source's own statistics: measure your
data for it, see `projects/CMU/configs/mmovseg_ddhr_sk_vitb16.py`.
"""

from mmovseg.checkpoint.contract import ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.layers.norm import PixelNorm

sar_contract = L(ModalityContract)(
    sensor="any SAR, uncalibrated",
    bands=("amplitude", "amplitude", "amplitude"),
    unit="amplitude8",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
sar_norm = L(PixelNorm)(mean=sar_contract.mean, std=sar_contract.std)
