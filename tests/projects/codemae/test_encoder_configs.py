"""Every encoder of the project's configs builds, and says of itself what the others rely on."""

import pytest
import torch
from detectron2.config import instantiate

from mmovseg.config import get_config

CONFIG = "projects/CoDeMAE/configs/common/encoders.py"
LEVELS = {
    "hivit_xs": {"p2": 24, "p4": 24, "p8": 24},
    "hivit_b": {"p4": 256, "p8": 256, "p16": 256},
    "hivit_l": {"p4": 256, "p8": 256, "p16": 256},
    "timm_vit_xs": {"p8": 128},
    "timm_vit_b": {"p16": 768},
}
MIDDLE = {"hivit_xs": 96, "hivit_b": 512, "hivit_l": 768, "timm_vit_xs": 128, "timm_vit_b": 768}


def test_the_list_is_whole():
    assert {name for name in get_config(CONFIG) if not name.startswith("_")} == set(LEVELS) == set(MIDDLE)


@pytest.mark.parametrize("name", LEVELS)
def test_encoder_builds(name):
    with torch.device("meta"):
        model = instantiate(get_config(CONFIG)[name])
    assert {level: shape.channels for level, shape in model.output_shape().items()} == LEVELS[name]
    assert model.sensors == ("optical", "sar") and model.dim == MIDDLE[name]
    assert len(model.blocks) == model.main_blocks[-1] + 1
    layers = model.parameter_layers()
    assert set(layers.values()) == set(range(model.num_layers + 1))  # no layer without parameters


@pytest.mark.parametrize("name", ["hivit_xs", "timm_vit_xs"])
def test_small_encoder_trains_on_pairs(name):
    torch.manual_seed(0)
    model = instantiate(get_config(CONFIG)[name]).train()
    keep = torch.randperm(64)[:16].expand(4, -1)
    batch = {"optical": torch.randn(2, 3, 64, 64), "sar": torch.randn(2, 2, 64, 64)}
    features = model.encode(batch, keep=keep, middle_block=model.main_blocks[1])
    parts = [features.tokens, features.middle, *features.levels.values()]
    sum(part.square().mean() for part in parts).backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []
