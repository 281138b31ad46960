"""Continued pretraining for the gaps on MiniEarth: everything trains, on labelled scenes of eight domains.

    tools/train_net.py --config-file projects/CrossEarthSAR/configs/gaps_cpt_xs.py

Dense: model.encoder.num_experts=null. Then `gaps_xs.py`. Domains: dataloader.train.dataset.pool=strict.
"""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/common/gaps_model.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
model.encoder.freeze = False
dataloader = get_config("projects/CrossEarthSAR/configs/common/data_gaps.py").pretraining

# As Mask2Former's public recipe. On validation scenes of the pool: 44.1 mIoU with a tenth, 38.9 with three tenths.
optimizer.lr_multipliers = {"encoder": 0.1}
train.max_iter = 300  # 300 it * 8 scenes / 1600 scenes = 1.5 epochs
train.output_dir = "output/crossearth/gaps_cpt_xs"
