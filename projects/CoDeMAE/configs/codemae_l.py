"""CoDe-MAE with HiViT-L, which the release holds and the paper does not: decoders of width 768 with 16 heads."""

from mmovseg.config import get_config

_base = get_config("projects/CoDeMAE/configs/common/pretrain_b.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
model.encoder = get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_l
model.decoder.dim = 768
model.decoder.num_heads = 16
train.output_dir = "output/codemae/l"
