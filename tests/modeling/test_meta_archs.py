"""Contrastive pretraining, the detectron2 registries and the input contract."""

from __future__ import annotations

import json
import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_model

from mmovseg.checkpoint.contract import InputContract, ModalityContract, contract_from_dict
from mmovseg.config import find_config, get_config, instantiate
from mmovseg.modeling.yacs import add_mmovseg_config
from tests.modeling.conftest import VOCABULARY, build_xs, make_inputs


def test_pretrainer_learns_a_batch_and_segments_zero_shot():
    config = get_config("miniearth/clip_xs.py").model
    torch.manual_seed(0)
    model = instantiate(config).train()
    inputs = make_inputs(4, modality="optical")
    for i, caption in enumerate(("forest", "water and a road", "city", "farmland")):
        inputs[i]["caption"] = caption
        inputs[i]["image"][i % 3] //= 1 + i  # noise alone looks the same after pooling
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = model(inputs)["loss_contrastive"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        scores = model.eval()(inputs)
    assert scores[0]["sem_seg"].shape == (len(VOCABULARY), 64, 64) and scores[0]["sem_seg"].abs().max() <= 1.0001


@pytest.mark.parametrize("start", [10.0, math.log(100.0)])
def test_the_temperature_is_limited_and_can_fall_again(start):
    model = instantiate(get_config("miniearth/clip_xs.py").model).train()
    scale = model.clip.model.logit_scale
    with torch.no_grad():
        scale.fill_(start)
    inputs = make_inputs(2, modality="optical")
    for item, caption in zip(inputs, ("forest", "water and a road"), strict=True):
        item["caption"] = caption
    model(inputs)["loss_contrastive"].backward()
    assert scale.exp().item() == pytest.approx(100.0) and scale.grad != 0


def test_stock_build_model_builds_the_same_model_from_yaml():
    cfg = get_cfg()
    add_mmovseg_config(cfg)
    cfg.merge_from_file(str(find_config("mmovseg/mmovseg_xs.yaml")))
    torch.manual_seed(0)
    from_yaml = build_model(cfg).eval()
    lazy = build_xs(seed=0).eval()
    theirs, ours = from_yaml.state_dict(), lazy.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)
    with torch.no_grad():
        assert torch.equal(from_yaml(make_inputs(1))[0]["sem_seg"], lazy(make_inputs(1))[0]["sem_seg"])


def test_registries_know_the_architecture_and_the_encoder():
    assert "MMOVSeg" in META_ARCH_REGISTRY and "build_timm_encoder" in BACKBONE_REGISTRY
    cfg = get_cfg()
    add_mmovseg_config(cfg)
    cfg.MODEL.TIMM_ENCODER.NAME, cfg.MODEL.TIMM_ENCODER.TAPS = "vit_tiny_patch16_224", [2, 4]
    encoder = BACKBONE_REGISTRY.get("build_timm_encoder")(cfg, None)
    assert encoder.output_shape()["block4"].stride == 16
    cfg.MODEL.TIMM_ENCODER.NAME = ""
    with pytest.raises(ValueError, match="is empty"):
        BACKBONE_REGISTRY.get("build_timm_encoder")(cfg, None)


def test_input_contract_survives_json():
    sar = ModalityContract(
        sensor="S1", bands=("VV", "VH"), unit="db", mean=(-12.0, -18.0), std=(5.0, 5.0), clip=(-35.0, 10.0)
    )
    contract = InputContract(optical=None, sar=sar, gsd_m=(2.5, 10.0), train_size=64)
    assert contract_from_dict(json.loads(json.dumps(contract.to_dict()))) == contract
    assert build_xs().input_contract["sar"]["unit"] == "db"


def test_contract_needs_one_constant_a_band():
    with pytest.raises(ValueError, match="2 bands"):
        ModalityContract(sensor="S1", bands=("VV", "VH"), unit="db", mean=(0.0,), std=(1.0,))
