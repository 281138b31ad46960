"""Fine-tuning on optical scenes (release): batch 32, 100 epochs, RandAugment, random erasing, mixup and CutMix."""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.io import FileReader
from mmovseg.data.transforms import RandomFlip, RandomResizedCrop
from mmovseg.data.transforms.centre_crop import CentreCrop, CubicResizeShortestEdge
from mmovseg.projects.codemae.data.classification_mapper import RandAugment
from mmovseg.projects.codemae.modeling.classifier import Mixing

_base = get_config("projects/CoDeMAE/configs/common/finetune.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.sensor = "optical"
model.update(get_config("projects/CoDeMAE/configs/common/classification_data.py").norms.aid)
model.encoder.in_chans = dict(optical=3)
model.encoder.drop_path = 0.1
# Stronger than the paper's table says: so it is in the code of the release.
model.mixing = L(Mixing)(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5)
model.label_smoothing = 0.1
model.erase_prob = 0.25

dataloader.train.mapper.reader = dataloader.test.mapper.reader = L(FileReader)()
dataloader.train.mapper.geometry = [L(RandomResizedCrop)(size=224, scale=(0.08, 1.0), antialias=True), L(RandomFlip)()]
dataloader.train.mapper.optical_photometric = L(RandAugment)(
    size=224, policy="rand-m9-mstd0.5-inc1", mean="${model.optical_norm.mean}"
)
dataloader.test.mapper.geometry = [L(CubicResizeShortestEdge)(short_edge_px=256), L(CentreCrop)(size=224)]
dataloader.train.batch_size = 32
dataloader.train.num_workers = 4
dataloader.test.num_workers = 4

optimizer.base_lr = 1e-3 * 32 / 256
lr_multiplier.end_factor = 1e-6 / optimizer.base_lr
train.output_dir = "output/codemae/finetune_optical"
