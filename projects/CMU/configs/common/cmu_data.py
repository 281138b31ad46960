"""CMU-Data: pairs of SpaceNet 6 and DFC2023 as the paper mixes them (Sec. 3.2.2), MiniEarth switched off; SAR in dB.

Two SAR channels, (VV, VH), as the models of `common/models/mmovseg_vitb16.py` read; DFC2023 has one band, which is
repeated. Every source has its own normalisation, because none of them is calibrated. The shipped figures for SpaceNet 6
and DFC2023 are estimates: measure your copy with `tools/compute_statistics.py` and set `model.student_norm.statistics`.
`cmu_data_amplitude8.py` is the same for models that read 8-bit SAR. projects/CMU/README.md says how to add folders.
"""

from mmovseg.checkpoint.contract import ModalityContract, contract_of_sources
from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_train_loader
from mmovseg.data.datasets import mix_datasets
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.readers import SourceReader
from mmovseg.data.transforms import (
    FixedSizePad,
    RandomCrop,
    RandomFlip,
    RandomRotate90,
    RandomRotation,
    RandomScale,
    RandomTranslation,
)
from mmovseg.layers.norm import PixelNorm, norm_of_sources

# Our choice, 16 x 16 patches of 16 px: the paper gives no tile size for CMU-Data. PIE and DDHR, which its MM-OVSeg then
# reads, are cut to 256 px (Sec. 4.1.1).
_crop_px = 256

# The paper names translation, flipping, scaling and rotation, and no range: these are ours. One transform moves both
# rasters; whatever a margin uncovers is invalid in both, and the aligner leaves such patches out.
_geometry = [
    # Tiles have 512 and 900 px. Twice the final side is enough for what follows, and costs a third of a whole tile.
    L(RandomCrop)(size=2 * _crop_px),
    # Mirrored and turned radar shadows and layover look like another pass of the satellite, so every turn is allowed.
    L(RandomFlip)(vertical=True),
    L(RandomRotate90)(),
    # Small angles only and in half of the draws: interpolation smooths speckle, and the corners are lost.
    L(RandomRotation)(max_angle_deg=15.0, prob=0.5),
    L(RandomTranslation)(max_fraction=0.1),
    # The rasters have 0.5 to 1 m, the paper says 0.5 to 3 m: down to half the resolution. Up to 1.5 times, which is how
    # much MM-OVSeg enlarges its tiles (256 to 384 px); beyond that no detail is left.
    L(RandomScale)(low=0.5, high=1.5),
    L(RandomCrop)(size=_crop_px),
    L(FixedSizePad)(size=_crop_px),
]

_train = L(build_train_loader)(
    dataset=L(mix_datasets)(
        # No ratios: by size, as one collection. To weigh, give every source in use one; 0 switches a source off.
        sources=[
            dict(name="spacenet6", dataset="spacenet6_train", ratio=None),
            dict(name="dfc2023", dataset="dfc2023_train", ratio=None),
            dict(name="miniearth", dataset="miniearth_train", ratio=0, options=dict(size=2 * _crop_px)),
        ]
    ),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=None,  # the sources number their classes apart, and alignment reads no labels
        reader=L(SourceReader)(
            readers=dict(
                spacenet6=L(FileReader)(sar_polarisations_in=("HH", "HV", "VH", "VV"), sar_polarisations=("VV", "VH")),
                dfc2023=L(FileReader)(sar_channels=2),
                miniearth=L(MiniEarthReader)(),
            )
        ),
        geometry=_geometry,
        modality="both",
        with_clear=True,  # these images have no clouds, so it is the image itself; the aligner's default view
    ),
    batch_size=8,
    num_workers=4,
)
dataloader = dict(train=_train)

# The teacher is frozen, so it reads every source as in its own training: DINO v1 with ImageNet's constants. Configs
# with another teacher (`cmu_vitl16.py`, `cmu_clip_vitb16.py`) set that one's.
_optical = L(ModalityContract)(
    sensor="any RGB",
    bands=("red", "green", "blue"),
    unit="uint8",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
teacher_norm = L(PixelNorm)(mean=_optical.mean, std=_optical.std)
student_norm = L(norm_of_sources)(statistics="cmu_db", modality="sar")
# Stands beside `student_norm` in a model, and lists the sources that are switched on.
input_contract = L(contract_of_sources)(
    statistics="${..student_norm.statistics}",
    bands=("VV", "VH"),
    optical=_optical,
    sources="${dataloader.train.dataset.sources}",
    gsd_m=(0.3, 2.0),  # 0.5 to 1 m, scaled by 1.5 to 0.5
    train_size=_crop_px,
)
