"""DIOR, optical, 800 x 800 px: Faster R-CNN on HiViT-B with the recipe of the release.

    data/dior/{trainval,test}.json, data/dior/images/

The release chooses its checkpoint on the test split; here the last one counts (`train.select_best` can do otherwise).
"""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.transforms import RandomFlip, Resize
from mmovseg.engine.optim import build_optimizer
from mmovseg.engine.schedule import WarmupSchedule
from mmovseg.layers.norm import PixelNorm

train = get_config("common/train.py").train
model = get_config("projects/CoDeMAE/configs/common/faster_rcnn.py").model
dataloader = get_config("projects/CoDeMAE/configs/common/data_coco.py").dataloader

_contract = L(ModalityContract)(
    sensor="DIOR",
    bands=("red", "green", "blue"),
    unit="uint8",
    mean=(98.33, 101.306, 92.275),
    std=(51.038, 47.363, 47.672),
)
model.sensor = "optical"
model.norms = dict(optical=L(PixelNorm)(mean=_contract.mean, std=_contract.std))
model.input_contract = L(InputContract)(optical=_contract, sar=None, train_size=800)
model.backbone.in_chans = dict(optical=3)
model.backbone.weights = "data/codemae/codemae_b.safetensors"
model.categories = [
    "airplane",
    "airport",
    "baseballfield",
    "basketballcourt",
    "bridge",
    "chimney",
    "dam",
    "Expressway-Service-area",
    "Expressway-toll-station",
    "golffield",
    "groundtrackfield",
    "harbor",
    "overpass",
    "ship",
    "stadium",
    "storagetank",
    "tenniscourt",
    "trainstation",
    "vehicle",
    "windmill",
]
model.roi_heads.num_classes = 20

_size_px = 800
for _loader, _file in ((dataloader.train, "trainval"), (dataloader.test, "test")):
    _loader.dataset.json_file = f"data/dior/{_file}.json"
    _loader.dataset.optical_dir = "data/dior/images"
dataloader.train.mapper.geometry = [L(Resize)(size=_size_px), L(RandomFlip)()]
dataloader.test.mapper.geometry = [L(Resize)(size=_size_px)]
dataloader.evaluator.dataset_name = "dior_test"

# 3e-4 for 16 images a step, of 8 processes with 2; scale it with the batch.
optimizer = L(build_optimizer)(
    base_lr=3e-4,
    weight_decay=0.05,
    decay_vectors=False,
    no_decay=["backbone.positions"],
    layer_decay=0.85,
    layer_module="backbone",
)
_epoch = 733  # 11,725 images / 16
train.max_iter = 12 * _epoch
lr_multiplier = L(WarmupSchedule)(
    max_iter="${train.max_iter}",
    decay="multistep",
    milestones=[8 * _epoch, 11 * _epoch],
    warmup_iters=500,
    warmup_factor=1e-3,
)
train.clip_grad.enabled = True
train.clip_grad.max_norm = 35.0
train.eval_period = 0
train.checkpoint.period = _epoch
train.output_dir = "output/codemae/faster_rcnn_dior_b"
