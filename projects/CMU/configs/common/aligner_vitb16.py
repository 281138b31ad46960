"""CMU of the paper, ViT-B/16: DINO v1 on clear RGB teaches a copy of itself to read SAR (Sec. 3.2.2, 4.1.2).

Channels, norms and contract are those of `common/models/mmovseg_vitb16.py` (VV and VH in dB); configs for other SAR set
their own.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.modeling.meta_arch import PatchAligner

_mmovseg = get_config("common/models/mmovseg_vitb16.py").model

model = L(PatchAligner)(
    teacher=_mmovseg.optical_encoder,
    student=_mmovseg.sar_encoder,  # starts from DINO's weights, its first filters folded to the channels of SAR
    # As MM-OVSeg normalises: the teacher then gives the very features that those of SAR are added to.
    teacher_norm=_mmovseg.optical_norm,
    student_norm=_mmovseg.sar_norm,
    loss_weights={"infonce": 1.0},
    temperature=0.07,  # the paper names none; that of CLIP's start
    patches_per_step=None,  # 8 crops of 256 px are 2,048 patches: a matrix of 16 MB
    input_contract=_mmovseg.input_contract,
)
model.student.freeze = False
model.input_contract.train_size = 256
