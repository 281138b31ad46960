"""MiniEarth for pretraining: clear scenes of 64 px as pairs, chips with targets as unpaired optical and SAR images.

`dataloader.train.dataset.use=paired` or `=unpaired` takes one part alone. Both come from one world and one pair of
sensors, so one set of constants normalises them; `source` still tells scenes from chips. Finding the chips takes about
15 ms each, once a process.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.build import build_train_loader
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.transforms import RandomFlip, RandomResizedCrop
from mmovseg.projects.codemae.data.pretraining import PretrainingMapper
from mmovseg.projects.codemae.data.sources import miniearth_pretraining

_models = get_config("common/models/mmovseg_xs.py")
input_contract, optical_norm, sar_norm = (_models[key] for key in ("input_contract", "optical_norm", "sar_norm"))

_size_px = 64
_train = L(build_train_loader)(
    dataset=L(miniearth_pretraining)(use="both", num_pairs=1500, num_chips=750, size=_size_px),
    mapper=L(PretrainingMapper)(
        reader=L(MiniEarthReader)(),
        # The paper crops from 0.2 of the area on. Of 64 pixels that leaves 29, drawn out to twice their size, and the
        # probes look at scenes of the original size.
        geometry=[L(RandomResizedCrop)(size=_size_px, scale=(0.5, 1.0)), L(RandomFlip)()],
    ),
    batch_size=64,
)
dataloader = dict(train=_train)
