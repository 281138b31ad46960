"""CrossEarth-SAR-B on one of the 22 benchmarks, frozen after continued pretraining (`cpt_b.py`).

tools/train_net.py --config-file projects/CrossEarthSAR/configs/benchmark_b.py dataloader.benchmark=N2S
"""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/common/benchmark.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.encoder = get_config("projects/CrossEarthSAR/configs/common/encoders.py").moe_b
model.encoder.freeze = True
model.encoder.weights = "output/crossearth/cpt_b/model_final.safetensors"
train.output_dir = "output/crossearth/benchmark_b"
