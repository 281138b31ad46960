"""Fine-tuning on RESISC45, 10 % for training, HiViT-B (release): as AID with a layer decay of 0.95.

``<datasets>/resisc45/<class>/*.jpg`` with the lists ``train_labels_10.txt`` and ``val_labels_10.txt`` beside the
classes.
"""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/finetune_aid_b.py")
_data = get_config("projects/CoDeMAE/configs/common/classification_data.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.update(_data.norms.resisc45)
dataloader.train.dataset.folder = dataloader.test.dataset.folder = dataloader.evaluator.classes.folder = "resisc45"
dataloader.train.dataset.list_file, dataloader.test.dataset.list_file = "train_labels_10.txt", "val_labels_10.txt"
dataloader.evaluator.dataset_name = "resisc45_90"
optimizer.layer_decay = 0.95
train.max_iter = 9_844  # 100 epochs * 3150 images / 32
train.eval_period = 492  # 5 epochs
lr_multiplier.warmup_iters = 492
train.output_dir = "output/codemae/finetune_resisc45_b"
