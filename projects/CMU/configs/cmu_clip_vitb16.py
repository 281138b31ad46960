"""CMU for CLIP's visual encoder (appendix E): CLIP ViT-B/16 on RGB teaches a copy of itself to read SAR.

Its encoder is the `clip_sar_encoder` of `mmovseg_ddhr_sk_vitb16_clip_sar.py`. In both towers a token of the last block
attends to itself alone, as in the dense map that MM-OVSeg reads CLIP with.
"""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/cmu_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

for _encoder in (model.teacher, model.student):
    _encoder.name = "vit_base_patch16_clip_quickgelu_224.openai"
    _encoder.local_last_block = True
_clip_norm = get_config("common/models/mmovseg_vitb16.py").clip_norm
model.teacher_norm = _clip_norm
model.input_contract.optical.mean, model.input_contract.optical.std = _clip_norm["mean"], _clip_norm["std"]
train.output_dir = "output/cmu/clip_vitb16"
