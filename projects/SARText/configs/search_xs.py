"""The CLIP that ships with the repository as an image-text model: what `tools/search_images.py` asks by default.

It knows clear optical images of MiniEarth. To go on training it on captions:

    tools/train_net.py --config-file projects/SARText/configs/search_xs.py
"""

from mmovseg.config import get_config

_base = get_config("projects/SARText/configs/clip_natural_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.architecture = get_config("common/models/mmovseg_xs.py").clip_architecture
model.weights = "shipped://clip_xs"
train.output_dir = "output/sartext/search_xs"
