"""CMU with the paper's recipe, ViT-B/16 on CMU-Data in dB: for MM-OVSeg on VV and VH in dB.

Its encoder fits `configs/mmovseg/mmovseg_vitb16.py` and `spacenet6_vitb16.py`. `--eval-only` measures it on MiniEarth.
"""

from mmovseg.config import get_config

_base = get_config("projects/CMU/configs/cmu_vitb16.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
_data = get_config("projects/CMU/configs/common/cmu_data.py")
dataloader = _data.dataloader
dataloader.update(get_config("projects/CMU/configs/common/encoder_eval_mix.py").dataloader)
dataloader.test.mapper.reader = dataloader.train.mapper.reader

model.student.in_chans = 2
model.student_norm, model.input_contract = _data.student_norm, _data.input_contract
train.output_dir = "output/cmu/vitb16_db"
