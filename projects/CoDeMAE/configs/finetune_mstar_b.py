"""Fine-tuning on MSTAR, ten classes, 40 shots, HiViT-B (release); from scratch with `model.encoder.weights=null`.

``<datasets>/mstar/TRAIN/<class>/`` and ``TEST/<class>/``, with or without folders below the classes.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.codemae.data.classification import class_names, load_class_folder

_base = get_config("projects/CoDeMAE/configs/common/finetune_chips.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

for _part, _folder in ((dataloader.train.dataset, "mstar/TRAIN"), (dataloader.test, "mstar/TEST")):
    _part.dataset = L(load_class_folder)(folder=_folder, classes="${dataloader.evaluator.classes}", sensor="sar")
dataloader.evaluator.dataset_name = "mstar_test"
dataloader.evaluator.classes = L(class_names)(folder="mstar/TRAIN")
train.output_dir = "output/codemae/finetune_mstar_b"
