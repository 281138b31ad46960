"""Fine-tuning on AID, 20 % for training, HiViT-B (release).

``<datasets>/aid/<class>/*.jpg`` with the lists ``train_labels_20.txt`` and ``val_labels_20.txt`` beside the classes.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.codemae.data.classification import class_names, load_class_list

_base = get_config("projects/CoDeMAE/configs/common/finetune_optical.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

for _part, _list in ((dataloader.train, "train_labels_20.txt"), (dataloader.test, "val_labels_20.txt")):
    _part.dataset = L(load_class_list)(list_file=_list, folder="aid", classes="${dataloader.evaluator.classes}")
dataloader.evaluator.dataset_name = "aid_80"
dataloader.evaluator.classes = L(class_names)(folder="aid")
train.max_iter = 6_250  # 100 epochs * 2000 images / 32
train.eval_period = 312  # 5 epochs
lr_multiplier.warmup_iters = 312
train.output_dir = "output/codemae/finetune_aid_b"
