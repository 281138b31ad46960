"""Behind the gaps on MiniEarth: a decoder trained on one domain over a frozen encoder, tested there and on eight more.

    tools/train_net.py --config-file projects/CrossEarthSAR/configs/gaps_xs.py

It starts from `gaps_cpt_xs.py`; without: model.encoder.weights=folded:shipped://sar_xs. `gaps_linear_xs.py`: linear.
"""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/common/gaps_model.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
model.encoder.freeze = True
model.encoder.weights = "output/crossearth/gaps_cpt_xs/model_final.safetensors"
dataloader = get_config("projects/CrossEarthSAR/configs/common/data_gaps.py").downstream

train.max_iter = 400  # 400 it * 8 scenes / 1000 scenes = 3.2 epochs
train.output_dir = "output/crossearth/gaps_xs"
