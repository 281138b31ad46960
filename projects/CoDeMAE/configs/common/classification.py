"""Classification with an encoder of CoDe-MAE: linear probe and fine-tuning, without data.

A config that takes a model from here has `dataloader.evaluator.classes` (names; their number is that of the scores).
What the release does and where: each value that is its own is marked so.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.engine.optim import build_optimizer, build_sgd
from mmovseg.engine.schedule import WarmupSchedule
from mmovseg.projects.codemae.modeling.classifier import ImageClassifier

_encoders = get_config("projects/CoDeMAE/configs/common/encoders.py")
_weights = "data/codemae/codemae_b.safetensors"  # as in the other configs of the large encoder; null = random start


# Linear probe (release): pooled tokens -> norm without weights -> batch norm without weights -> linear layer.
probe = L(ImageClassifier)(
    encoder=_encoders.hivit_b,
    classes="${dataloader.evaluator.classes}",
    sensor="sar",
    optical_norm=None,
    sar_norm=None,
    multi_label="${dataloader.evaluator.multi_label}",
    freeze_encoder=True,
    cache_features=True,
    learned_norm=False,
    batch_norm=True,
    init="normal",
)
probe.encoder.pyramid_dim = None
probe.encoder.weights = _weights
# The rate does not go with the batch (release).
probe_optimizer = L(build_sgd)(base_lr=0.5, momentum=0.9, weight_decay=0.0)
probe_schedule = L(WarmupSchedule)(max_iter="${train.max_iter}", decay="cosine", end_factor=2e-6)  # to 1e-6

# Fine-tuning (release): everything learns, the norm of the head too.
finetune = L(ImageClassifier)(
    encoder=_encoders.hivit_b,
    classes="${dataloader.evaluator.classes}",
    sensor="sar",
    optical_norm=None,
    sar_norm=None,
    learned_norm=True,
    batch_norm=False,
    init="truncated",
)
finetune.encoder.pyramid_dim = None
finetune.encoder.weights = _weights
# No decay for biases, norms and positions. The rate is 1e-3 for 256 images a batch, and goes with the batch.
finetune_optimizer = L(build_optimizer)(
    base_lr=1e-3,
    weight_decay=0.05,
    betas=[0.9, 0.999],
    layer_decay=0.85,
    layer_module="encoder",
    decay_vectors=False,
    no_decay=["encoder.positions"],
)
finetune_schedule = L(WarmupSchedule)(
    max_iter="${train.max_iter}", decay="cosine", warmup_factor=0.0, decay_after_warmup=True, end_factor=1e-3
)
