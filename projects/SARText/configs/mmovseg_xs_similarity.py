"""MM-OVSeg XS with a text-aligned similarity of SAR beside the two it has, from a CLIP that learned SAR from captions.

    tools/train_net.py --config-file projects/SARText/configs/mmovseg_xs_similarity.py

That CLIP is frozen. The same with a CLIP that never saw SAR: `model.sar_text.clip.weights=shipped://clip_xs`.
"""

from mmovseg.config import get_config

_base = get_config("projects/SARText/configs/mmovseg_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.sar_text = get_config("projects/SARText/configs/common/mmovseg_xs.py").sar_text
model.sar_text.clip.weights = "output/sartext/clip_mmovseg_xs/model_final.safetensors"
train.output_dir = "output/sartext/mmovseg_xs_similarity"
