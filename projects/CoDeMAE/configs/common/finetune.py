"""Fine-tuning for classification, complete but for the data and its length: see `finetune_*.py`."""

from mmovseg.config import get_config

_parts = get_config("projects/CoDeMAE/configs/common/classification.py")
model, optimizer, lr_multiplier = _parts.finetune, _parts.finetune_optimizer, _parts.finetune_schedule
dataloader = get_config("projects/CoDeMAE/configs/common/classification_data.py").dataloader
train = get_config("common/train.py").train

train.output_dir = "output/codemae/finetune"
