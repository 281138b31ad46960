"""MM-OVSeg ViT-B/16 with the paper's recipe (Sec. 4.1.2), on MiniEarth scenes of 256 pixels as a stand-in."""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.transforms import OpticalJitter, RandomCrop, RandomFlip, ResizeShortestEdge

model = get_config("common/models/mmovseg_vitb16.py").model
dataloader = get_config("common/data/miniearth.py").dataloader
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

for _part in (dataloader.train, dataloader.test):
    _part.dataset.size = 256
# Networks read 384 pixels (release); predictions return to the size of the raster.
dataloader.train.mapper.geometry = [
    L(ResizeShortestEdge)(short_edge_px=384),
    L(RandomCrop)(size=384),
    L(RandomFlip)(),
]
# The release's colour jitter: brightness 32, contrast and saturation 0.5..1.5, hue 18 steps of OpenCV's 180 a circle.
dataloader.train.mapper.optical_photometric = L(OpticalJitter)(
    brightness=32.0, contrast=0.5, saturation=0.5, hue_deg=36.0
)
dataloader.train.batch_size = 8
dataloader.train.num_workers = 4
dataloader.test.mapper.geometry = [L(ResizeShortestEdge)(short_edge_px=384)]
dataloader.test.batch_size = 1

optimizer.base_lr = 2.5e-4
optimizer.lr_multipliers = {"clip": 0.008}  # 2e-6 / 2.5e-4
train.max_iter = 120_000
train.clip_grad.enabled = True
train.clip_grad.max_norm = 0.01  # release; the paper names none
train.amp.enabled = False
train.output_dir = "output/mmovseg_vitb16"
