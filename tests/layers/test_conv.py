"""Convolutions in a faster form give what the plain ones give."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmovseg.layers import conv
from mmovseg.layers.conv import PatchUpsampling, WideConv2d
from mmovseg.layers.norm import PixelNorm, SourceNorm, same_constants


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("channels_last", [False, True])
def test_patch_upsampling_is_a_transposed_convolution(ratio, channels_last):
    layer = PatchUpsampling(6, 5, ratio)
    plain = nn.ConvTranspose2d(6, 5, ratio, stride=ratio)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 3, 4)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    found, expected = layer(x), plain(x)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    (found.square().sum() + expected.square().sum()).backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(24, 24), (5, 37), (1, 1)])
@torch.no_grad()
def test_wide_convolution_is_as_exact_as_the_direct_one(batch, size):
    layer = WideConv2d(32, 24, 7, padding=3)
    x = torch.randn(batch, 32, *size)
    exact = nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=3)
    error = (layer(x) - exact).abs().max() / exact.abs().max()
    assert error < 2e-6
    strided = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(strided), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reason", ["gradients", "no NNPACK", "double precision"])
def test_wide_convolution_takes_the_direct_way_where_the_other_does_not_go(reason, monkeypatch):
    layer = WideConv2d(4, 3, 7, padding=3)
    x = torch.randn(1, 4, 9, 9)
    if reason == "no NNPACK":
        monkeypatch.setattr(conv, "_HAS_NNPACK", False)
    if reason == "double precision":
        layer, x = layer.double(), x.double()
    with torch.set_grad_enabled(reason == "gradients"):
        assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias, padding=3))


@torch.no_grad()
def test_wide_convolution_takes_empty_batches_and_tensors_without_values():
    layer = WideConv2d(4, 3, 7, padding=3)
    assert layer(torch.zeros(0, 4, 9, 8)).shape == (0, 3, 9, 8)
    with FakeTensorMode():
        assert WideConv2d(4, 3, 7, padding=3)(torch.zeros(2, 4, 9, 8)).shape == (2, 3, 9, 8)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@torch.no_grad()
def test_wide_convolution_compiles_in_one_graph(backend):
    torch.compiler.reset()
    layer = WideConv2d(4, 3, 7, padding=3)
    x = torch.randn(1, 4, 9, 8)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x), atol=1e-5, rtol=1e-5)


def test_constants_are_the_same_only_if_every_image_ends_the_same():
    one = PixelNorm(mean=(1.0, 2.0), std=(3.0, 4.0))
    assert same_constants(one, one) and same_constants(one, PixelNorm(mean=(1.0, 2.0), std=(3.0, 4.0)))
    assert not same_constants(one, PixelNorm(mean=(1.0, 2.5), std=(3.0, 4.0)))
    assert not same_constants(one, PixelNorm(mean=(1.0, 2.0), std=(3.0, 4.0), clip=(0.0, 9.0)))
    assert not same_constants(one, PixelNorm(mean=(1.0,), std=(3.0,)))
    assert not same_constants(one, SourceNorm(norms={"a": one}, default="a"))
