"""CMU for the XS models with the teacher's features from disk: two views an image, 0.8 GB.

`tools/precompute_features.py --config-file projects/CMU/configs/cmu_xs_features.py` computes them first, once for all
seeds and losses.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.features import FeatureMapper

_base = get_config("projects/CMU/configs/cmu_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

dataloader.train.mapper.views = 2
dataloader.train.mapper = L(FeatureMapper)(mapper=dataloader.train.mapper, features="output/features/cmu_xs")
train.output_dir = "output/cmu/xs_features"
