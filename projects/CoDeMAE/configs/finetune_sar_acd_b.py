"""Fine-tuning on SAR-ACD, 40 shots, HiViT-B (release): no layer decay; as many classes as there are folders.

``<datasets>/sar_acd/<class>/``. It comes without a split: a seeded half of every class is for testing, the same for all
`train.seed`. Many chips are the same aircraft cropped anew: of the 600 that were at hand two in three have such a copy.
Copies stay on one side; drawn one by one, two test chips in five would have a copy among those that are learned from.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.codemae.data.classification import class_names, load_class_folder

_base = get_config("projects/CoDeMAE/configs/common/finetune_chips.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

for _part, _split in ((dataloader.train.dataset, "train"), (dataloader.test, "test")):
    _part.dataset = L(load_class_folder)(
        folder="sar_acd",
        classes="${dataloader.evaluator.classes}",
        sensor="sar",
        part=_split,
        test_share=0.5,
        copies_above=0.9,
    )
dataloader.evaluator.dataset_name = "sar_acd_test"
dataloader.evaluator.classes = L(class_names)(folder="sar_acd")
optimizer.layer_decay = None
train.max_iter = 288  # 60 epochs * 6 classes * 40 images / 50
train.eval_period = 24
lr_multiplier.warmup_iters = 10
train.output_dir = "output/codemae/finetune_sar_acd_b"
