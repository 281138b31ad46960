"""Step 1 of the XS weights: a CLIP from scratch, on MiniEarth images (a third of them clouded) and their captions."""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.transforms import OpticalJitter
from mmovseg.modeling.meta_arch import CLIPPretrainer

_models = get_config("common/models/mmovseg_xs.py")
dataloader = get_config("common/data/miniearth.py").dataloader
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

model = L(CLIPPretrainer)(clip=_models.clip, norm=_models.optical_norm, input_contract=_models.input_contract)
model.clip.finetune = "full"

dataloader.train.batch_size = 64
dataloader.train.mapper.modality = "optical"
dataloader.train.mapper.keep_caption = True
dataloader.train.mapper.clouds = L(CloudSynthesizer)(kind="varied", prob=1 / 3)
dataloader.train.mapper.optical_photometric = L(OpticalJitter)(
    brightness=20.0, contrast=0.2, saturation=0.2, hue_deg=6.0
)
dataloader.test.mapper.modality = dataloader.evaluator.modality = "optical"
dataloader.test.dataset.name = dataloader.evaluator.dataset_name = "miniearth_val"  # models are chosen on val

optimizer.base_lr = 1e-3
optimizer.weight_decay = 0.05
train.max_iter = 1600  # 1600 it * 64 im/it / 4000 im = 26 epochs
train.clip_grad.enabled = True
train.output_dir = "output/zoo/clip_xs"
lr_multiplier.warmup_iters = 100
