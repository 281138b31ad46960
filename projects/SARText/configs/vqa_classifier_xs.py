"""Questions about SAR images by a classifier over a closed list of answers, on the frozen CLIP of stage 2.

tools/train_net.py --config-file projects/SARText/configs/vqa_classifier_xs.py
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.miniearth.regions import CLASS_NAMES
from mmovseg.projects.sartext.modeling.answer_classifier import AnswerClassifier

_recipe = get_config("projects/SARText/configs/common/recipe_xs.py")
train, optimizer, lr_multiplier = (_recipe[key] for key in ("train", "optimizer", "lr_multiplier"))
dataloader = get_config("projects/SARText/configs/common/data_tasks.py").questions

model = L(AnswerClassifier)(
    encoder=get_config("projects/SARText/configs/common/models_xs.py").clip_sar,
    answers=["yes", "no", *(str(number) for number in range(11)), *CLASS_NAMES],
    hidden=256,
)
model.encoder.weights = "output/sartext/clip_sar_xs/model_final.safetensors"
dataloader.train.batch_size = 256
train.max_iter = 1000  # the images are encoded once, in the first epoch: 1000 it * 256 questions/it = 20 epochs
train.output_dir = "output/sartext/vqa_classifier_xs"
