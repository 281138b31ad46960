"""Continued pretraining for the gaps on MiniEarth: everything trains, on labelled scenes of eight domains.

    tools/train_net.py --config-file projects/CrossEarthSAR/configs/gaps_cpt_xs.py

Dense: model.encoder.num_experts=null. Then `gaps_xs.py`. Domains: dataloader.train.dataset.pool=strict.
"""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/common/gaps_model.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
model.encoder.freeze = False
dataloader = get_config("projects/CrossEarthSAR/configs/common/data_gaps.py").pretraining

train.max_iter = 250  # 250 it * 16 scenes / 1600 scenes = 2.5 epochs
train.output_dir = "output/crossearth/gaps_cpt_xs"
