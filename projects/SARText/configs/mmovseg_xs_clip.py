"""MM-OVSeg XS whose CLIP is one that learned SAR from captions, and reads SAR.

    tools/train_net.py --config-file projects/SARText/configs/mmovseg_xs_clip.py

Global similarity, text embeddings and the guidance of CLIP then come from it; the optical image goes through its dense
encoder alone. The same weights reading the optical image: `mmovseg_xs.py` with `model.clip.weights=<file>`.
"""

from mmovseg.config import get_config

_base = get_config("projects/SARText/configs/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
_sar_text = get_config("projects/SARText/configs/common/mmovseg_xs.py").sar_text

model.optical_norm = get_config("common/models/mmovseg_xs.py").optical_norm
model.clip.weights = "output/sartext/clip_mmovseg_xs/model_final.safetensors"
model.clip_input, model.clip_bands, model.clip_norm = "sar", _sar_text.bands, _sar_text.norm
train.output_dir = "output/sartext/mmovseg_xs_clip"
