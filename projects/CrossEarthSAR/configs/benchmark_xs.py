"""A model of minutes on one of the 22 benchmarks, to try out data and settings: crops of 64 pixels, a small decoder.

tools/train_net.py --config-file projects/CrossEarthSAR/configs/benchmark_xs.py dataloader.benchmark=N2S
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.transforms import FixedSizePad, RandomCrop, RandomFlip

_base = get_config("projects/CrossEarthSAR/configs/common/benchmark.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.encoder = get_config("projects/CrossEarthSAR/configs/common/encoders.py").moe_xs
model.encoder.in_chans = 3
model.encoder.descriptors.channels = "first"
model.encoder.weights = "shipped://dense_xs"  # of optical images, as DINOv2 is
model.encoder.freeze = True
model.head = get_config("projects/CrossEarthSAR/configs/common/head.py").mask2former_xs
model.window, model.window_stride, model.windows_at_once = 64, 64, 16
model.input_contract.train_size = 64
dataloader.train.mapper.geometry = [L(RandomCrop)(size=64), L(FixedSizePad)(size=64), L(RandomFlip)()]
dataloader.train.batch_size = 16
optimizer.base_lr = 1e-3
train.max_iter = 200
train.amp.enabled = False
train.output_dir = "output/crossearth/benchmark_xs"
