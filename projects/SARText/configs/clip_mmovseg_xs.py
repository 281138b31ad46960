"""The CLIP of MM-OVSeg XS goes on with SAR images and their captions: what `mmovseg_xs_*.py` put to use.

    tools/train_net.py --config-file projects/SARText/configs/clip_mmovseg_xs.py

`shipped://clip_xs` learned from clear and clouded optical images of the same scenes and stands for the stages before
SAR. Captions name all seven classes, as those of `clip_xs` did.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets import get_dataset
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel

_recipe = get_config("projects/SARText/configs/common/recipe_xs.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))
_common = get_config("projects/SARText/configs/common/mmovseg_xs.py")
dataloader = get_config("projects/SARText/configs/common/data_stages.py").sar

model = L(ImageTextModel)(
    kind="clip",
    norm=_common.sar_text.norm,
    architecture=_common.sar_text.clip.architecture,
    weights="shipped://clip_xs",
    modality="sar",
    bands=_common.sar_text.bands,
    input_contract=_common.input_contract,
)

dataloader.train.dataset = L(get_dataset)(name="miniearth_train")
dataloader.test.dataset = L(get_dataset)(name="miniearth_test")
dataloader.evaluator.dataset_name = "miniearth_test"
train.max_iter = 300  # 300 it * 32 im/it / 4000 im = 2.4 epochs
train.output_dir = "output/sartext/clip_mmovseg_xs"
