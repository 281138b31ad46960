"""CoDe-MAE with HiViT-B, the paper's model; 8 GPUs: `tools/train_net.py --num-gpus 8 --config-file <this file>`."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/common/pretrain_b.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
