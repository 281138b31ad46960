"""The parts of the encoders: order of sub-tokens, places after folding, positions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmovseg.projects.codemae.modeling.blocks import (
    UnitEmbedding,
    UnitMerge,
    UnitSplit,
    fold_units,
    resize_positions,
    sincos_positions,
)


def sub_tokens(side):
    """(1, 1, side**2, 1) whose value names the place: 10 * row + column."""
    return torch.tensor([10.0 * row + column for row in range(side) for column in range(side)]).view(1, 1, -1, 1)


def test_merge_goes_down_before_it_goes_right():
    merge = UnitMerge(1, 4)
    merge.norm, merge.reduction = nn.Identity(), nn.Identity()
    merged = merge(sub_tokens(4))
    assert merged.shape == (1, 1, 4, 4)
    assert merged[0, 0].tolist() == [
        [0, 10, 1, 11],  # (0,0), (1,0), (0,1), (1,1)
        [2, 12, 3, 13],
        [20, 30, 21, 31],
        [22, 32, 23, 33],
    ]


def test_split_unfolds_rows_then_columns():
    split = UnitSplit(1, 1)
    split.norm = nn.Identity()
    with torch.no_grad():  # the four children of a token t are t + 0.1, t + 0.2, t + 0.3, t + 0.4
        split.reduction = nn.Linear(1, 4)
        split.reduction.weight.fill_(1.0)
        split.reduction.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
        fine = split(sub_tokens(2))
    expected = [
        [0.1, 0.2, 1.1, 1.2],
        [0.3, 0.4, 1.3, 1.4],
        [10.1, 10.2, 11.1, 11.2],
        [10.3, 10.4, 11.3, 11.4],
    ]
    torch.testing.assert_close(fine.view(4, 4), torch.tensor(expected))


@pytest.mark.parametrize("side", [1, 2, 4])
def test_one_hot_sub_token_folds_to_its_place(side):
    grid = (3, 5)
    for unit, token in ((0, 0), (7, side * side - 1), (14, side // 2), (9, side * (side - 1))):
        x = torch.zeros(2, 15, side * side, 3)
        x[1, unit, token, 2] = 1.0
        row = unit // 5 * side + token // side
        column = unit % 5 * side + token % side
        folded = fold_units(x, grid)
        assert folded.shape == (2, 3, 3 * side, 5 * side)
        assert folded.nonzero().tolist() == [[1, 2, row, column]]


@pytest.mark.parametrize(("unit_size", "side"), [(16, 4), (8, 4), (8, 1)])
def test_embedding_equals_a_strided_convolution(unit_size, side):
    embedding = UnitEmbedding(3, 6, unit_size=unit_size, side=side, norm_eps=None)
    x = torch.randn(2, 3, 2 * unit_size, 3 * unit_size)
    folded = fold_units(embedding(x), (2, 3))
    torch.testing.assert_close(folded, embedding.proj(x), rtol=1e-5, atol=1e-5)


def test_embedding_of_visible_units_equals_the_rows_of_all():
    embedding = UnitEmbedding(2, 6, unit_size=8, side=4)
    x = torch.randn(2, 2, 16, 24)
    keep = torch.tensor([[5, 0, 3], [2, 4, 1]])
    everything = embedding(x)
    visible = embedding(x, keep)
    assert visible.shape == (2, 3, 16, 6)
    for row in range(2):
        for place, unit in enumerate(keep[row].tolist()):
            torch.testing.assert_close(visible[row, place], everything[row, unit], rtol=1e-5, atol=1e-6)


def test_sincos_positions_against_a_loop():
    height, width, dim = 2, 3, 8
    found = sincos_positions((height, width), dim)
    assert found.shape == (1, 6, 8) and found.dtype is torch.float32
    for row in range(height):
        for column in range(width):
            expected = []
            for place in (column, row):
                angles = [place / 10000 ** (i / 2) for i in range(2)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            assert found[0, row * width + column].tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        sincos_positions((2, 2), 6)


def test_positions_of_the_native_grid_are_the_same_object():
    positions = torch.randn(1, 196, 4)
    assert resize_positions(positions, (14, 14), (14, 14)) is positions


@pytest.mark.parametrize("grid", [(7, 7), (24, 24), (10, 33), (32, 14)])  # 24: where MM-OVSeg's constant must not enter
def test_resized_positions_equal_the_scale_factor_variant(grid):
    positions = torch.randn(1, 196, 4)
    table = positions.view(1, 14, 14, 4).permute(0, 3, 1, 2)
    factors = tuple((size + 0.1) / 14 for size in grid)
    expected = F.interpolate(table, scale_factor=factors, mode="bicubic", align_corners=False)
    found = resize_positions(positions, (14, 14), grid)
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1).flatten(1, 2), rtol=0, atol=0)
    to_size = F.interpolate(table, size=grid, mode="bicubic", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
    if 14 not in grid:
        assert not torch.allclose(found, to_size, atol=1e-4)  # the other way to do it is not the same
