"""Building damage on MiniEarth: optical before, SAR after a made-up disaster; the encoder is that of `codemae_xs.py`.

    tools/train_net.py --config-file projects/CoDeMAE/configs/damage_miniearth_xs.py

From random weights: model.encoder.weights=null. Other disasters: dataloader.{train,test}.dataset.disaster.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.miniearth.damage import Disaster, MiniEarthDamageReader, load_miniearth_damage
from mmovseg.data.transforms import RandomFlip

_base = get_config("projects/CoDeMAE/configs/damage_bright_b.py")
_xs = get_config("common/models/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.encoder = get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_xs
model.encoder.out_features = ["p2", "p4", "p8", "p16"]
model.encoder.coarse_pool = "max"
model.encoder.weights = "output/codemae/xs/model_final.safetensors"
model.before_norm, model.after_norm = _xs.optical_norm, _xs.sar_norm
model.head = dict(channels=32, norm="group")
model.window = model.window_stride = None
model.input_contract = _xs.input_contract

_disaster = L(Disaster)(damaged_share=0.25, destroyed_share=0.25)
for _loader, _split, _count in ((dataloader.train, "train", 800), (dataloader.test, "test", 200)):
    _loader.dataset = L(load_miniearth_damage)(split=_split, num_scenes=_count, disaster=_disaster)
    _loader.mapper.reader = L(MiniEarthDamageReader)()
    _loader.num_workers = 0
# The radar looks to the east, nearly: left-right flips and turns would put shadows where no test image has them.
dataloader.train.mapper.geometry = [L(RandomFlip)(horizontal=False, vertical=True)]
dataloader.train.mapper.optical_photometric = dataloader.train.mapper.sar_photometric = None
dataloader.train.batch_size = 8
dataloader.test.batch_size = 25
dataloader.evaluator.dataset_name = "miniearth_damage_test"
dataloader.evaluator.sar_unit = "db"

optimizer.base_lr = 2e-3
train.max_iter = 300  # 300 it * 8 pairs/it / 800 pairs = 3 epochs
train.clip_grad.enabled = True
train.clip_grad.max_norm = 5.0
train.seed = 0
lr_multiplier.warmup_iters = 20
train.output_dir = "output/codemae/damage_xs"
