"""UPerNet over HiViT-B with the widths, the optimiser and the schedule that the release has for LoveDA.

A leaf sets modality, norms, classes and data. Norms over all processes want large batches; on small ones take
`model.head.norm=group model.auxiliary.norm=group`, the default of the heads.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.vocabulary import closed_vocabulary
from mmovseg.engine.optim import build_optimizer
from mmovseg.engine.schedule import WarmupSchedule
from mmovseg.projects.codemae.modeling.segmentor import EncoderSegmentor

train = get_config("common/train.py").train

encoder = get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_b
encoder.out_features = ["p4", "p8", "p16", "p32"]
encoder.coarse_pool = "max"
encoder.drop_path = 0.15
encoder.norm_eps = 1e-5  # as the release's segmentation ran, although it was pretrained with 1e-6
encoder.weights = "data/codemae/codemae_b.safetensors"

model = L(EncoderSegmentor)(
    encoder=encoder,
    vocabulary=L(closed_vocabulary)(dataset="miniearth"),
    modality="optical",
    head=dict(channels=768, norm="sync"),
    auxiliary=dict(channels=256, norm="sync"),
    auxiliary_weight=0.4,
)

optimizer = L(build_optimizer)(
    base_lr=3e-5,  # the config of the release; its file name says 1e-4
    weight_decay=0.05,
    decay_vectors=False,
    no_decay=["encoder.positions"],
    layer_decay=0.85,
)
lr_multiplier = L(WarmupSchedule)(
    max_iter="${train.max_iter}", decay="poly", power=1.0, warmup_iters=500, warmup_factor=1e-6
)
train.max_iter = 10_000
train.output_dir = "output/codemae/upernet_b"
train.clip_grad.enabled = True
train.clip_grad.max_norm = 35.0
train.amp.enabled = True
train.amp.dtype = "bfloat16"  # the release: float16, which needs a GPU
