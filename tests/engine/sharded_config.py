"""Config of a run with a small vision transformer: what fully sharded training is tested with."""

import tests.engine.toy_config as _toy
from mmovseg.config import LazyCall as L
from mmovseg.modeling.backbone import TimmEncoder
from tests.engine.toy_parts import ToyVision

dataloader, optimizer, lr_multiplier, train = _toy.dataloader, _toy.optimizer, _toy.lr_multiplier, _toy.train
model = L(ToyVision)(
    # widths that two processes cannot halve, and a last block that stays frozen
    encoder=L(TimmEncoder)(
        name="vit_tiny_patch16_224",
        taps=[3],
        model_args=dict(patch_size=4, embed_dim=9, depth=3, num_heads=3),
        image_size=8,
        freeze=False,
    ),
)
