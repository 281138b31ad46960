"""CoDe-MAE for MiniEarth: the whole objective over the small encoder, and a budget of minutes on two CPU cores."""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.codemae.losses import ContrastSpec, CrossSpec, DistillationSpec
from mmovseg.projects.codemae.modeling.decoder import DecoderSpec
from mmovseg.projects.codemae.modeling.pretrainer import CoDeMAE
from mmovseg.projects.codemae.modeling.teacher import FrozenTeacher

_xs = get_config("common/models/mmovseg_xs.py")
_data = get_config("projects/CoDeMAE/configs/common/data_miniearth.py")
dataloader = dict(train=_data.dataloader.train)
dataloader.update(get_config("projects/CoDeMAE/configs/common/pretrain_probes.py").dataloader)
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

model = L(CoDeMAE)(
    encoder=get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_xs,
    decoder=L(DecoderSpec)(dim=64, depth=2, num_heads=4),
    cross=L(CrossSpec)(target="grey", directions="both"),
    distillation=L(DistillationSpec)(
        # The optical encoder of the shipped model; its patches have 4 px, so four of them make a unit.
        teacher=L(FrozenTeacher)(
            encoder=dict(
                name=_xs.optical_encoder.name,
                image_size=_xs.optical_encoder.image_size,
                model_args=_xs.optical_encoder.model_args,
                local_last_block=_xs.optical_encoder.local_last_block,
                weights="shipped://dense_xs",
            ),
            width=64,
            mean=_data.optical_norm.mean,
            std=_data.optical_norm.std,
        ),
        auxiliary=True,  # behind block int(0.75 * depth), as everywhere; of the four blocks here that is the last
        num_heads=4,
    ),
    contrast=L(ContrastSpec)(mode="conditioned", gather="official", num_heads=4),
    optical_norm=_data.optical_norm,
    sar_norm=_data.sar_norm,
    loss_weights=dict(mae=1.0, okd=1.0, okd_aux=1.0, ccl=1.0, cdr=1.0),
    mask_ratio=0.75,
    share_encoder=True,
    share_decoder=True,
    features=["tokens"],
    input_contract=_data.input_contract,
)

# As the release: betas of MAE, no decay of biases and norms (but of mask tokens and positions).
optimizer.base_lr = 1e-3  # the release's 1.5e-4 per 256 images is for a thousand times the steps
optimizer.weight_decay = 0.05
optimizer.betas = [0.9, 0.95]
optimizer.decay_vectors = False
# 400 it * 32 samples / (1500 pairs + 400 unpaired couples) = 6.7 epochs: about three minutes with rendering and probes
dataloader["train"].batch_size = 32
dataloader["train"].dataset.num_chips = 400
train.max_iter = 400
train.output_dir = "output/codemae/xs"
train.log_period = 20
train.clip_grad.enabled = True  # the release does not clip
lr_multiplier.warmup_iters = 40
