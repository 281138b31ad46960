"""MM-OVSeg with a CLIP tower for SAR in the paper's own setting (Table A5, models 2 and 4): DDHR-SK, ViT-B/16.

`model.clip_sar_encoder.weights` takes the encoder of `cmu_clip_vitb16.py`, for model 4 `model.sar_encoder.weights` also
that of `cmu_vitb16.py`; without, both start from RGB weights that never saw SAR. SAR is normalised by the data's own
statistics, which `mmovseg_ddhr_sk_vitb16.py` says how to measure.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.modeling.backbone import TimmEncoder

_base = get_config("projects/CMU/configs/mmovseg_ddhr_sk_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.clip_sar_encoder = L(TimmEncoder)(
    name="vit_base_patch16_clip_quickgelu_224.openai",
    taps=(12,),
    weights="timm",
    in_chans=3,
    local_last_block=True,
)
train.output_dir = "output/cmu/mmovseg_ddhr_sk_vitb16_clip_sar"
