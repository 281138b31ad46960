"""Land cover of MiniEarth by UPerNet over the encoder that `codemae_xs.py` trains: optical, clear sky, all 7 classes.

    tools/train_net.py --config-file projects/CoDeMAE/configs/upernet_miniearth_xs.py

From random weights: model.encoder.weights=null. `upernet_miniearth_xs_sar.py` reads SAR.
"""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/common/upernet.py")
_xs = get_config("common/models/mmovseg_xs.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))

model.encoder = get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_xs
model.encoder.out_features = ["p2", "p4", "p8", "p16"]
model.encoder.coarse_pool = "max"
model.encoder.weights = "output/codemae/xs/model_final.safetensors"
model.head = dict(channels=32, norm="group")
model.auxiliary = dict(channels=32, norm="group")
model.optical_norm = _xs.optical_norm
model.input_contract = _xs.input_contract

dataloader = get_config("common/data/miniearth.py").dataloader
for _owner in (dataloader.train.mapper, dataloader.test.mapper, dataloader.evaluator):
    _owner.vocabulary, _owner.modality = model.vocabulary, "optical"
dataloader.train.mapper.clouds = dataloader.test.mapper.clouds = None
dataloader.train.dataset.num_scenes = 1000

optimizer.base_lr = 2e-3
train.max_iter = 300  # 300 it * 16 im/it / 1000 im = 4.8 epochs
train.amp.enabled = False
train.clip_grad.max_norm = 5.0
lr_multiplier.warmup_iters = 20
train.output_dir = "output/codemae/upernet_xs"
