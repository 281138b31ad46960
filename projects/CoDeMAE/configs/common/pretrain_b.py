"""CoDe-MAE as the paper pretrains it: HiViT-B on OSPretrain-1M, taught by DINOv3 (Sec. IV-A and the release's recipe).

The encoder starts from iTPN's ImageNet weights, converted with `tools/convert_checkpoint.py`:
`model.encoder.weights=FILE`. The teacher's are loaded by timm, or from a file with
`model.distillation.teacher.encoder.weights=FILE`.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.codemae.losses import ContrastSpec, CrossSpec, DistillationSpec
from mmovseg.projects.codemae.modeling.decoder import DecoderSpec
from mmovseg.projects.codemae.modeling.pretrainer import CoDeMAE
from mmovseg.projects.codemae.modeling.teacher import FrozenTeacher

_data = get_config("projects/CoDeMAE/configs/common/data_ospretrain.py")
dataloader = _data.dataloader
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

model = L(CoDeMAE)(
    encoder=get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_b,
    decoder=L(DecoderSpec)(dim=512, depth=8, num_heads=16),
    cross=L(CrossSpec)(target="grey", directions="both"),
    distillation=L(DistillationSpec)(
        # Satellite pretraining; constants are timm's, times 255. The variant with query and value biases, which are
        # zeros in the published weights, so that converted files fit.
        teacher=L(FrozenTeacher)(
            encoder=dict(name="vit_large_patch16_dinov3_qkvb.sat493m", weights="timm"),
            width=1024,
            mean=(109.65, 104.805, 75.48),
            std=(54.315, 39.78, 36.465),
        ),
        auxiliary=True,
        num_heads=8,
    ),
    contrast=L(ContrastSpec)(mode="conditioned", gather="official", num_heads=16),
    optical_norm=_data.optical_norm,
    sar_norm=_data.sar_norm,
    loss_weights=dict(mae=1.0, okd=1.0, okd_aux=1.0, ccl=1.0, cdr=1.0),
    mask_ratio=0.75,
    input_contract=_data.input_contract,
)

# 1.5e-4 for 256 images, and 1024 pairs are 2048 images.
optimizer.base_lr = 1.2e-3
optimizer.weight_decay = 0.05
optimizer.betas = [0.9, 0.95]
optimizer.decay_vectors = False
dataloader.train.batch_size = 1024  # 128 pairs on each of 8 GPUs
_epoch = 515  # 528,121 samples (pairs and unpaired couples) / 1024
train.max_iter = 800 * _epoch  # 100 epochs in the paper's ablations
train.amp.enabled = True
train.amp.dtype = "float16"
train.output_dir = "output/codemae/b"
train.log_period = 50
train.eval_period = -1  # OSPretrain has no labels: probe with linear_probe_*_b.py
train.checkpoint.period = 50 * _epoch
lr_multiplier.warmup_iters = 15 * _epoch
lr_multiplier.warmup_factor = 0.0
lr_multiplier.decay_after_warmup = True
