"""Recipes: what trains, what decays, in which precision, and how long."""

import pytest
import torch

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config, instantiate
from mmovseg.data.vocabulary import closed_vocabulary
from mmovseg.testing.checks import random_inputs

CONFIGS = "projects/CrossEarthSAR/configs"


def small(name, **encoder):
    """A recipe around the XS encoder with random weights and the XS head; the recipe's other settings as they are."""
    config = get_config(f"{CONFIGS}/{name}.py")
    freeze = config.model.encoder.freeze
    config.model.encoder = get_config(f"{CONFIGS}/common/encoders.py").moe_xs
    config.model.encoder.update(weights=None, in_chans=3, freeze=freeze, **encoder)
    config.model.head = get_config(f"{CONFIGS}/common/head.py").mask2former_xs
    config.model.vocabulary = L(closed_vocabulary)(dataset="loveda")
    config.model.update(window=None, window_stride=None)
    torch.manual_seed(0)
    model = instantiate(config.model)
    arguments = {key: config.optimizer[key] for key in config.optimizer}
    return config, model, instantiate({**arguments, "model": model})


def decayed(model, optimizer):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {True: set(), False: set()}
    for group in optimizer.param_groups:
        groups[group["weight_decay"] > 0] |= {names[id(parameter)] for parameter in group["params"]}
    return groups[True], groups[False]


def test_pretraining_trains_everything_that_a_loss_reaches():
    config, model, optimizer = small("cpt_l")
    with_decay, without = decayed(model, optimizer)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert with_decay | without == trained
    assert {name for name in trained if name.startswith("encoder.model.blocks")}
    bare = ("level_embed", "pos_embed", "cls_token", "queries_embedder", "queries_features", "norm")
    assert all(any(part in name for name in without) for part in bare)
    assert not any(part in name for name in with_decay for part in bare)
    assert {group["lr"] for group in optimizer.param_groups} == {3e-5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}
    losses = model.train()(random_inputs(model.vocabulary, ((64, 64),), modality="sar", polarisations=1))
    assert "loss_moe_balance" in losses
    sum(losses.values()).backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == {
        name for name, p in model.named_parameters() if not p.requires_grad
    }
    assert config.train.max_iter == round(18 * 203_240 / config.dataloader.train.batch_size)


def test_downstream_training_trains_the_head_alone():
    config, model, optimizer = small("common/downstream")
    trained = set().union(*decayed(model, optimizer))
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("head.")}
    assert {group["lr"] for group in optimizer.param_groups} == {1e-4}
    config.lr_multiplier.max_iter = config.train.max_iter
    schedule = instantiate(config.lr_multiplier)
    assert schedule(0.0) == 1 and schedule(0.5) == pytest.approx(0.5**0.9) and schedule(1.0) == 0


def test_under_autocast_the_pixel_decoder_and_the_losses_keep_full_precision():
    _, model, _ = small("common/downstream")
    kinds = {}
    head = model.head.decoder
    head.pixel_decoder.register_forward_hook(lambda m, a, out: kinds.update(pixels=out.mask_features.dtype))
    head.register_forward_hook(lambda m, a, out: kinds.update(masks=out[-1][1].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.train()(random_inputs(model.vocabulary, ((64, 64),), modality="sar", polarisations=1))
    assert kinds == {"pixels": torch.float32, "masks": torch.bfloat16}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_the_large_models_read_maps_that_make_a_pyramid():
    """Patch 16 at four depths: strides 4, 8, 16 and 32."""
    config = get_config(f"{CONFIGS}/common/downstream.py")
    assert config.model.head == {"name": "Mask2FormerHead"}
    assert len(config.model.encoder.taps) == 4 and config.model.encoder.model_args.patch_size == 16
