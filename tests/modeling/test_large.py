"""The full-size models build, count as stated, take a training step and predict, on a CPU with random weights."""

from __future__ import annotations

import os
import resource

import pytest
import torch

from mmovseg.config import get_config, instantiate
from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import OpenCLIPEncoder
from tests.modeling.conftest import make_inputs

# (all, trainable). The paper says 331M and 31M for ViT-B/16; for the released models see `test_released_model.py`.
COUNTS = {
    "mmovseg_vitb16": (333_088_546, 32_514_337),
    "mmovseg_vitl14": (1_054_670_114, 85_316_641),
    "released_vitb16": (331_959_698, 31_170_449),
    "released_vitl14": (1_049_578_130, 79_864_209),
}


def build(name):
    config = get_config(f"mmovseg/{name}.py").model
    config.clip.weights = config.optical_encoder.weights = config.sar_encoder.weights = None
    torch.manual_seed(0)
    return instantiate(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(COUNTS))
def test_full_size_model_trains_and_predicts(name, capsys):
    model = build(name)
    assert model.count_parameters()["total"] == COUNTS[name]
    vocabulary = vocabulary_from_names("city, forest")
    inputs = make_inputs(1, 384, 384, vocabulary=vocabulary)
    bands = len(model.sar_norm.mean)
    inputs[0]["sar"] = inputs[0]["sar"][:1].repeat(bands, 1, 1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2.5e-4, weight_decay=0.0)
    loss = model.train()(inputs)["loss_sem_seg"]
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    optimizer.zero_grad()
    with torch.no_grad():
        scores = model.eval()(inputs)[0]["sem_seg"]
    assert scores.shape == (2, 384, 384) and torch.isfinite(scores).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    with capsys.disabled():
        print(f"\n{name}: one training step and one prediction of 384 px, peak memory of the process {peak:.1f} GiB")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_pretrained_dense_weights_without_network_give_one_sentence(no_network):
    with pytest.raises(UserError, match="vit_tiny_patch16_224.*cannot be downloaded") as caught:
        TimmEncoder("vit_tiny_patch16_224", taps=(1,), weights="timm")
    assert "\n" not in str(caught.value)


def test_pretrained_clip_weights_without_network_give_one_sentence(no_network):
    with pytest.raises(
        UserError, match="'openai' weights of open_clip model 'RN50-quickgelu' cannot be downloaded"
    ) as caught:
        OpenCLIPEncoder("RN50-quickgelu", weights="openai")
    assert "\n" not in str(caught.value)
