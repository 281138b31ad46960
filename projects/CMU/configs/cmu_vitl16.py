"""CMU for the large model (appendix D): DINOv3 ViT-L/16, blocks 8, 16 and 24, else as `cmu_vitb16.py`.

Its encoder fits the `_vitl14` configs of the same settings. Of CMU at this size the paper says nothing. The teacher
reads with the constants of its satellite pretraining, the student with those of each source of SAR.
"""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/cmu_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

_large = get_config("common/models/mmovseg_vitl14.py").model
for _encoder in (model.teacher, model.student):
    _encoder.name, _encoder.taps = _large.optical_encoder.name, _large.optical_encoder.taps
model.teacher_norm = _large.optical_norm
model.input_contract.optical = _large.input_contract.optical
train.output_dir = "output/cmu/vitl16"
