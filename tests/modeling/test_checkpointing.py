"""Activation checkpointing: the same gradients from less memory."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from mmovseg.modeling.backbone import TimmEncoder

SIZES = dict(patch_size=4, embed_dim=24, depth=4, num_heads=2)
MODELS = {
    "vit": ("vit_small_patch16_224", {**SIZES, "drop_path_rate": 0.3}),  # random numbers must be drawn alike
    "dinov2": ("vit_small_patch14_dinov2", {**SIZES, "init_values": 1e-2}),
    "dinov3": ("vit_small_patch16_dinov3", SIZES),
}


def losses_gradients_and_bytes(name, checkpointing):
    torch.manual_seed(0)
    timm_name, arguments = MODELS[name]
    encoder = TimmEncoder(
        timm_name,
        taps=(2, 4),
        model_args=dict(arguments),
        image_size=16,
        freeze=False,
        checkpointing=checkpointing,
    ).train()
    held = 0

    def count(tensor):
        nonlocal held
        held += tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(1)
    with saved_tensors_hooks(count, lambda tensor: tensor):
        maps = encoder(torch.randn(2, 3, 16, 24))
    loss = sum(level.square().mean() for level in maps.values())
    loss.backward()
    gradients = {key: parameter.grad for key, parameter in encoder.named_parameters() if parameter.grad is not None}
    return loss.item(), gradients, held


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_equal_and_less_is_kept(name):
    loss, gradients, held = losses_gradients_and_bytes(name, False)
    same_loss, same_gradients, less = losses_gradients_and_bytes(name, True)
    assert same_loss == loss
    assert set(same_gradients) == set(gradients)
    assert any(key.startswith("model.blocks.0") for key in gradients)
    for key, gradient in gradients.items():
        torch.testing.assert_close(same_gradients[key], gradient, rtol=0, atol=0, msg=key)
    assert less < held / 4


def test_a_frozen_encoder_keeps_a_graph_only_for_what_trains_inside():
    encoder = TimmEncoder("vit_small_patch16_224", taps=(1,), model_args=dict(SIZES), image_size=16)
    images = torch.randn(1, 3, 16, 16)
    assert not encoder.needs_graph
    assert not encoder(images)["block1"].requires_grad
    encoder.model.blocks[0].attn.proj.bias.requires_grad_(True)
    assert encoder(images)["block1"].requires_grad
    with torch.no_grad():
        assert not encoder(images)["block1"].requires_grad
    assert not encoder.train().model.training
