"""CrossEarth-SAR-L* on one of the 22 benchmarks: `benchmark_l.py` with an Earth-Adapter that trains beside the head.

tools/train_net.py --config-file projects/CrossEarthSAR/configs/benchmark_l_adapter.py dataloader.benchmark=N2S
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.crossearth.modeling.adapters import adapt_encoder

_base = get_config("projects/CrossEarthSAR/configs/benchmark_l.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
_adapters = get_config("projects/CrossEarthSAR/configs/common/adapters.py")
model.encoder = L(adapt_encoder)(encoder=model.encoder, adapter=_adapters.earth)
train.output_dir = "output/crossearth/benchmark_l_adapter"
