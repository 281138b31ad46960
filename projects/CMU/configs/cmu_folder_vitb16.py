"""CMU with the paper's recipe, ViT-B/16 on a folder of unlabelled pairs of one's own, two SAR channels in dB.

``data/pairs/{optical,sar}`` hold them; `common/folder_data.py` says how their pixels are measured first.
"""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/cmu_vitb16_db.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
_data = get_config("projects/CMU/configs/common/folder_data.py")
dataloader = _data.dataloader

model.student_norm, model.input_contract = _data.student_norm, _data.input_contract
train.output_dir = "output/cmu/folder_vitb16"
