"""A 10-shot linear probe, complete but for the data (`dataset`, `classes`, norms): see `linear_probe_*.py`.

All images of the draw are one batch (up to 256), so an epoch is one iteration; 50 epochs, evaluated every 5 (release).
"""

from mmovseg.config import get_config

_parts = get_config("projects/CoDeMAE/configs/common/classification.py")
model, optimizer, lr_multiplier = _parts.probe, _parts.probe_optimizer, _parts.probe_schedule
dataloader = get_config("projects/CoDeMAE/configs/common/classification_data.py").dataloader
train = get_config("common/train.py").train

train.max_iter = 50
train.eval_period = 5
train.log_period = 5
train.output_dir = "output/codemae/linear_probe"
