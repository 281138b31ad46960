"""Fine-tuning on FUSAR-Ship, 40 shots, HiViT-B (release).

``<datasets>/fusar_ship/Train/<class>/`` and ``Val/<class>/``, which is what is tested on.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.codemae.data.classification import class_names, load_class_folder

_base = get_config("projects/CoDeMAE/configs/common/finetune_chips.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

for _part, _folder in ((dataloader.train.dataset, "fusar_ship/Train"), (dataloader.test, "fusar_ship/Val")):
    _part.dataset = L(load_class_folder)(folder=_folder, classes="${dataloader.evaluator.classes}", sensor="sar")
dataloader.evaluator.dataset_name = "fusar_ship_val"
dataloader.evaluator.classes = L(class_names)(folder="fusar_ship/Train")
train.output_dir = "output/codemae/finetune_fusar_ship_b"
