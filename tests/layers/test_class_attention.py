"""Class attention against a loop over places with every padding class really there."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmovseg.layers.class_attention import ClassAttentionBlock

CHANNELS, CONTEXT, HEADS = 8, 6, 2


def build(**changes):
    block = ClassAttentionBlock(CHANNELS, CONTEXT, num_heads=HEADS, **changes)
    nn.init.normal_(block.padding_token)
    nn.init.normal_(block.padding_guidance)
    return block


def pool(maps, side):
    """Mean of cells of `side`, smaller at the right and bottom border."""
    height, width = maps.shape[-2:]
    return torch.stack(
        [
            torch.stack([maps[..., r : r + side, c : c + side].mean(dim=(-2, -1)) for c in range(0, width, side)], -1)
            for r in range(0, height, side)
        ],
        -2,
    )


def slow_block(block, x, guidance):
    count, missing = x.shape[1], max(0, block.class_padding - x.shape[1])
    coarse = pool(x, block.pooling)  # (N, K, C, h', w')
    refined = coarse.clone()
    words = torch.cat([guidance, block.padding_guidance[0].expand(missing, -1)])
    for n in range(len(x)):
        for r in range(coarse.shape[3]):
            for c in range(coarse.shape[4]):
                tokens = torch.cat([coarse[n, :, :, r, c], block.padding_token[0].expand(missing, -1)])
                normed = block.norm1(tokens)
                both = torch.cat([normed, words], dim=1)
                q, k, v = block.query(both), block.key(both), block.value(normed)
                mixed = torch.zeros_like(tokens)
                for head in range(HEADS):
                    part = slice(head * CHANNELS // HEADS, (head + 1) * CHANNELS // HEADS)
                    phi_q, phi_k = F.elu(q[:, part]) + 1, F.elu(k[:, part]) + 1
                    for t in range(count):
                        weights = phi_k @ phi_q[t]
                        mixed[t, part] = (weights[:, None] * v[:, part]).sum(dim=0) / (weights.sum() + 1e-6)
                tokens = tokens + mixed
                refined[n, :, :, r, c] = (tokens + block.mlp(block.norm2(tokens)))[:count]
    size = tuple(x.shape[-2:])
    return x + F.interpolate(refined.flatten(0, 1), size=size, mode="bilinear", align_corners=True).view_as(x)


@pytest.mark.parametrize(
    ("grid", "pooling", "padding"), [((4, 4), 2, 256), ((4, 6), 2, 3), ((5, 3), 2, 7), ((3, 2), 1, 5), ((1, 1), 2, 4)]
)
def test_block_equals_a_loop_with_all_padding_classes(grid, pooling, padding):
    block = build(pooling=pooling, class_padding=padding)
    x, guidance = torch.randn(2, 3, CHANNELS, *grid, requires_grad=True), torch.randn(3, CONTEXT)
    cotangent = torch.randn_like(x)
    fast, slow = block(x, guidance), slow_block(block, x, guidance)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    weights = [x, *(p for name, p in block.named_parameters() if padding > 3 or not name.startswith("padding"))]
    for one, other in zip(
        torch.autograd.grad((fast * cotangent).sum(), weights),
        torch.autograd.grad((slow * cotangent).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_padding_dilutes_and_is_absent_with_enough_classes():
    x, guidance = torch.randn(1, 5, CHANNELS, 4, 4), torch.randn(5, CONTEXT)
    torch.manual_seed(1)
    few = build(class_padding=4)
    torch.manual_seed(1)
    many = build(class_padding=256)
    with torch.no_grad():
        plain, diluted = few(x, guidance), many(x, guidance)
        few.padding_token.zero_()
        assert torch.equal(few(x, guidance), plain)
    assert not torch.allclose(plain, diluted, atol=1e-3)


def test_classes_in_another_order_give_the_same_maps_in_that_order():
    block, order = build(), torch.tensor([2, 0, 3, 1])
    x, guidance = torch.randn(1, 4, CHANNELS, 4, 4), torch.randn(4, CONTEXT)
    with torch.no_grad():
        torch.testing.assert_close(block(x[:, order], guidance[order]), block(x, guidance)[:, order])
