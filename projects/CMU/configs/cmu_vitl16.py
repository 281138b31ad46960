"""CMU for the large model (appendix D): DINOv3 ViT-L/16, blocks 8, 16 and 24, else as `cmu_vitb16.py`.

Its encoder fits the `_vitl14` configs of the same settings. Of CMU at this size the paper says nothing.
"""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/cmu_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

_dense = get_config("common/models/mmovseg_vitl14.py").model.optical_encoder
for _encoder in (model.teacher, model.student):
    _encoder.name, _encoder.taps = _dense.name, _dense.taps
train.output_dir = "output/cmu/vitl16"
