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
    # Not the paper's grey: patches of 8 px of grey, normalised one by one, are noise here, and nothing of them is
    # learnt from SAR (a loss of 0.98 of 1). Their mean colour is what a patch of SAR can tell.
    cross=L(CrossSpec)(target="spatial", directions="both"),
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
    # The release's are all 1. Chosen on scenes of val: the contrast with 1 costs the SAR probe 6 mIoU, since tokens
    # then say which scene they are from and not what they show.
    loss_weights=dict(mae=1.0, okd=1.0, okd_aux=1.0, ccl=0.1, cdr=3.0),
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
# 900 it * 8 samples / (800 pairs + 200 unpaired couples) = 7 epochs: about three minutes with rendering and probes.
# Many small steps, chosen on val: with the same time in 300 steps of 32 the full objective hardly leaves its start.
dataloader["train"].batch_size = 8
dataloader["train"].dataset.num_pairs = 800
dataloader["train"].dataset.num_chips = 200
train.max_iter = 900
train.output_dir = "output/codemae/xs"
train.log_period = 50
train.clip_grad.enabled = True  # the release does not clip
lr_multiplier.warmup_iters = 100
