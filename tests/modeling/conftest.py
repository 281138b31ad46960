"""Small random models and inputs."""

from __future__ import annotations

import pytest
import torch

from mmovseg.config import get_config, instantiate
from mmovseg.data.vocabulary import get_vocabulary

VOCABULARY = get_vocabulary("miniearth")


def make_inputs(count=2, height=64, width=64, *, modality="both", vocabulary=VOCABULARY, seed=0):
    generator = torch.Generator().manual_seed(seed)
    items = []
    for _ in range(count):
        item = {"vocabulary": vocabulary, "height": height, "width": width, "file_name": "made.tif"}
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        sar = torch.randn(2, height, width, generator=generator) * 5 - 12
        item["sem_seg"] = torch.randint(0, len(vocabulary), (height, width), generator=generator)
        if modality != "sar":
            item["image"] = image
        if modality != "optical":
            item["sar"] = sar
        items.append(item)
    return items


def build_xs(seed=0, **changes):
    config = get_config("common/models/mmovseg_xs.py").model
    for key, value in changes.items():
        config[key] = value
    torch.manual_seed(seed)
    return instantiate(config)


@pytest.fixture(scope="module")
def model():
    return build_xs().eval()
