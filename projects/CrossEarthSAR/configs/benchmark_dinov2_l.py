"""The baseline of the paper on one of the 22 benchmarks: DINOv2 ViT-L, frozen, without continued pretraining.

tools/train_net.py --config-file projects/CrossEarthSAR/configs/benchmark_dinov2_l.py dataloader.benchmark=N2S
"""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/common/benchmark.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.encoder = get_config("projects/CrossEarthSAR/configs/common/encoders.py").dense_l
model.encoder.freeze = True
train.output_dir = "output/crossearth/benchmark_dinov2_l"
