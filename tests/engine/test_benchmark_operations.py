"""Counted multiply-adds against PyTorch's own counter and against sums done by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmovseg.config import instantiate, load_config
from mmovseg.engine.benchmark.operations import count_operations
from mmovseg.engine.cost_inputs import noise_batch
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.layers import conv
from tests.modeling.released_parts import small_model


@pytest.fixture(scope="module")
def model():
    config = load_config("miniearth/mmovseg_xs.py")
    forget_foundation_weights(config.model)
    torch.manual_seed(0)
    return instantiate(config.model)


def batch_for(model, **options):
    return noise_batch(model.input_contract, **{"pixels": 32, "count": 1, "classes": 3, "is_train": False, **options})


def products(counts):
    """What PyTorch's counter sees on a CPU: everything but the fused attention."""
    return counts.forward - counts.by_operator.get("attention", 0)


@pytest.mark.parametrize("build", ["paper", "released"])
def test_products_are_those_that_pytorch_counts(build, model, monkeypatch):
    monkeypatch.setattr(conv, "_HAS_NNPACK", False)  # nor does it count convolutions by Fourier transforms
    # the counter of PyTorch stumbles over a parameter that is an input of a module and would have a gradient
    tested = (model if build == "paper" else small_model().requires_grad_(False)).eval()
    contract = tested.input_contract or model.input_contract | {"sar": model.input_contract["optical"]}
    batch = noise_batch(contract, pixels=64 if build == "released" else 32, count=2, classes=3, is_train=False)
    torch.backends.mha.set_fastpath_enabled(False)  # its kernel is one that PyTorch does not count
    try:
        with torch.no_grad():
            tested(batch)
            with FlopCounterMode(display=False) as counter:
                tested(batch)
        counts = count_operations(tested, batch)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert 2 * products(counts) == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert counts.step == counts.forward > 0 and counts.by_operator["attention"] > 0
    assert counts.left_out["add"] > 0 and "linear" not in counts.left_out


def test_the_fast_path_of_attention_costs_what_the_plain_one_costs(model):
    model.eval()
    batch = batch_for(model)
    with torch.no_grad():
        model(batch)
    fast = count_operations(model, batch)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert count_operations(model, batch).forward == fast.forward
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_a_step_is_about_what_pytorch_counts_forward_and_backward(model):
    model.train()
    batch = batch_for(model, is_train=True)
    counts = count_operations(model, batch)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused ones it does not count
        sum(model(batch).values()).backward()
    model.zero_grad()
    assert counts.forward < counts.step < 3 * counts.forward
    assert 2 * counts.step == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_frozen_parts_count_once_and_layers_that_pass_a_gradient_twice():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen = nn.Linear(4, 5).requires_grad_(False)
            self.mixed = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 7).requires_grad_(False))

        def forward(self, batch):
            x = torch.stack([item["image"] for item in batch])
            return {"loss": self.mixed(self.frozen(x)).sum()}

    counts = count_operations(Small().train(), [{"image": torch.ones(4)}] * 3)
    assert counts.forward == 3 * (20 + 30 + 42)
    assert counts.step == 3 * (20 + 3 * 30 + 2 * 42)


def test_attention_and_einsum_are_counted_by_hand():
    class Products(nn.Module):
        def forward(self, batch):
            x = batch[0]["image"]  # (2, 3, 5, 4)
            y = F.scaled_dot_product_attention(x, x, x)
            return [{"y": torch.einsum("...ld,kd->...lk", y, y[0, 0])}]

    counts = count_operations(Products().eval(), [{"image": torch.rand(2, 3, 5, 4)}])
    assert counts.by_operator == {"attention": 2 * 3 * 5 * 5 * (4 + 4), "einsum": 2 * 3 * 5 * 4 * 5}
