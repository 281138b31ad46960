"""Window attention against an explicit loop over windows, without rolling, padding or masks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmovseg.layers.window_attention import GuidedWindowBlock, WindowAttentionPair, fit_window, shifted_window_mask

CHANNELS, CONTEXT, HEADS = 8, 6, 2


def slow_block(block, x, guidance, num_classes):
    """Places (r, c) see each other when floor((r - shift) / window) is equal, and likewise for columns."""
    out = x.clone()
    height, width = x.shape[1:3]
    window, shift = fit_window((height, width), block.window, block.shift)
    for m in range(len(x)):
        groups = {}
        for r in range(height):
            for c in range(width):
                groups.setdefault(((r - shift[0]) // window[0], (c - shift[1]) // window[1]), []).append((r, c))
        for places in groups.values():
            tokens = torch.stack([block.norm1(x[m, r, c]) for r, c in places])
            steering = torch.stack([guidance[m // num_classes, r, c] for r, c in places])
            both = torch.cat([tokens, steering], dim=1)
            q, k, v = (
                part.unflatten(1, (HEADS, -1)).transpose(0, 1)
                for part in (block.query(both), block.key(both), block.value(tokens))
            )
            weights = torch.softmax(q @ k.transpose(1, 2) * (CHANNELS // HEADS) ** -0.5, dim=-1)
            mixed = block.proj((weights @ v).transpose(0, 1).flatten(1))
            for (r, c), token in zip(places, mixed, strict=True):
                y = x[m, r, c] + token
                hidden = F.gelu(F.linear(block.norm2(y), block.mlp[0].weight, block.mlp[0].bias))
                out[m, r, c] = y + F.linear(hidden, block.mlp[2].weight, block.mlp[2].bias)
    return out


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("grid", [(8, 8), (8, 12), (7, 10), (3, 9), (2, 3), (1, 1)])
def test_block_equals_a_loop_over_windows(grid, shift):
    block = GuidedWindowBlock(CHANNELS, CONTEXT, num_heads=HEADS, window=4, shift=shift)
    x = torch.randn(2 * 2, *grid, CHANNELS, requires_grad=True)
    guidance = torch.randn(2, *grid, CONTEXT)
    cotangent = torch.randn_like(x)
    fast, slow = block(x, guidance, 2), slow_block(block, x, guidance, 2)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    weights = [x, *block.parameters()]
    for one, other in zip(
        torch.autograd.grad((fast * cotangent).sum(), weights),
        torch.autograd.grad((slow * cotangent).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_grid_and_window_of_the_release():
    block = GuidedWindowBlock(CHANNELS, CONTEXT, num_heads=HEADS, window=12, shift=6)
    x, guidance = torch.randn(1, 24, 24, CHANNELS), torch.randn(1, 24, 24, CONTEXT)
    with torch.no_grad():
        torch.testing.assert_close(block(x, guidance, 1), slow_block(block, x, guidance, 1), atol=1e-5, rtol=1e-5)


def test_mask_of_the_release_has_nine_regions():
    mask = shifted_window_mask((24, 24), (12, 12), (6, 6))
    assert mask.shape == (4, 144, 144) and set(mask.unique().tolist()) == {-100.0, 0.0}
    assert not mask[0].any()  # the first window lies inside
    seen = (mask == 0).sum(dim=2)
    assert seen[1].unique().tolist() == [72] and seen[2].unique().tolist() == [72] and seen[3].unique().tolist() == [36]


def test_no_mask_without_shift_and_padding():
    assert shifted_window_mask((8, 12), (4, 4), (0, 0)) is None
    assert shifted_window_mask((8, 11), (4, 4), (0, 0)) is not None


def test_pair_shifts_its_second_block_and_normalises_the_guidance():
    pair = WindowAttentionPair(CHANNELS, CONTEXT, num_heads=HEADS, window=4)
    assert [block.shift for block in pair.blocks] == [0, 2]
    x, guidance = torch.randn(3, CHANNELS, 6, 6), torch.randn(1, CONTEXT, 6, 6)
    steering = pair.guidance_norm(guidance.permute(0, 2, 3, 1))
    expected = slow_block(pair.blocks[1], slow_block(pair.blocks[0], x.permute(0, 2, 3, 1), steering, 3), steering, 3)
    torch.testing.assert_close(pair(x, guidance, 3).permute(0, 2, 3, 1), expected, atol=1e-5, rtol=1e-5)
