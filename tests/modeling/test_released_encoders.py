"""The dense encoders of the release against slow versions written from their description."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from mmovseg.checkpoint.save import save_weights
from mmovseg.errors import UserError
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.backbone.positions import resize_positions_dino_v1

# ---------------------------------------------------------------- DINO v1: the position table


def cubic(distance):
    """Weights of cubic convolution with a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def slow_resize(table, rows, columns, factors):
    """Bicubic, clamped at the border; output place i samples the table at (i + 0.5) / factor - 0.5."""
    out = torch.zeros(table.shape[1], max(rows) + 1, max(columns) + 1)
    height, width = table.shape[-2:]
    for i in rows:
        for j in columns:
            y, x = (i + 0.5) / factors[0] - 0.5, (j + 0.5) / factors[1] - 0.5
            for r in range(math.floor(y) - 1, math.floor(y) + 3):
                for c in range(math.floor(x) - 1, math.floor(x) + 3):
                    value = table[0, :, min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
                    out[:, i, j] += cubic(y - r) * cubic(x - c) * value
    return out[:, rows][:, :, columns]


@pytest.mark.parametrize(
    ("old", "new", "factors"),
    [
        # The constant of the release, also on a table of 7x7, where DINO's own rule gives another factor.
        ((28, 28), (48, 48), (1.717857142857143, 1.717857142857143)),
        ((7, 7), (12, 12), (1.717857142857143, 1.717857142857143)),
        ((7, 7), (9, 12), (9.1 / 7, 1.717857142857143)),
        ((7, 7), (4, 20), (4.1 / 7, 20.1 / 7)),
    ],
)
def test_positions_are_sampled_where_dino_v1_samples_them(old, new, factors):
    table = torch.randn(1, 2, *old)
    rows, columns = ([0, 1, side // 2, side - 1] for side in new)
    found = resize_positions_dino_v1(table, new)
    assert found.shape == (1, 2, *new)
    expected = slow_resize(table, rows, columns, factors)
    torch.testing.assert_close(found[0][:, rows][:, :, columns], expected, atol=1e-4, rtol=1e-4)


def test_no_resize_at_the_size_of_the_table():
    table = torch.randn(1, 2, 7, 7)
    assert resize_positions_dino_v1(table, (7, 7)) is table


def small_dino(**changes):
    torch.manual_seed(0)
    arguments = dict(embed_dim=24, depth=2, num_heads=3)
    options = dict(taps=(1, 2), image_size=56, model_args=arguments, position_resize="dino_v1")
    return TimmEncoder("vit_small_patch8_224", **(options | changes))


def test_dino_v1_positions_change_the_resize_and_nothing_else():
    x = torch.randn(1, 3, 56, 56)
    dino, plain = small_dino(), small_dino(position_resize="timm")
    assert dino.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(dino(x)["block2"], plain(x)["block2"])
    wide = torch.randn(1, 3, 96, 40)
    assert dino(wide)["block2"].shape == plain(wide)["block2"].shape == (1, 24, 12, 5)
    assert not torch.allclose(dino(wide)["block2"], plain(wide)["block2"], atol=1e-4)
    assert torch.equal(copy.deepcopy(dino)(wide)["block2"], dino(wide)["block2"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(name="vit_small_patch16_dinov3"), "needs a plain vision transformer"),
        (dict(position_resize="bilinear"), "timm or dino_v1, got 'bilinear'"),
        (dict(keep_rope_periods=True), "needs rotary positions"),
    ],
)
def test_encoders_without_such_positions_are_refused(changes, words):
    small = dict(embed_dim=64, depth=1, num_heads=1)
    options = dict(name="vit_small_patch8_224", taps=(1,), position_resize="dino_v1", model_args=small) | changes
    with pytest.raises(UserError, match=words):
        TimmEncoder(options.pop("name"), **options)


@pytest.mark.parametrize("in_chans", [1, 3, 6])
def test_rgb_weights_fold_to_other_channels(tmp_path, in_chans):
    rgb = small_dino()
    save_weights(dict(rgb.model.state_dict()) | {"aside.head.weight": torch.ones(2)}, tmp_path / "rgb.safetensors")
    torch.manual_seed(1)
    folded = TimmEncoder(
        "vit_small_patch8_224",
        taps=(2,),
        in_chans=in_chans,
        image_size=56,
        model_args=dict(embed_dim=24, depth=2, num_heads=3),
        weights=f"folded:{tmp_path / 'rgb.safetensors'}",
    )
    grey = torch.randn(1, 1, 56, 56)
    # A grey image gets the same answer, whatever number of equal channels carries it.
    expected = rgb(grey.expand(-1, 3, -1, -1))["block2"]
    torch.testing.assert_close(folded(grey.expand(-1, in_chans, -1, -1))["block2"], expected, atol=1e-4, rtol=1e-4)


def test_files_that_do_not_fold_are_refused(tmp_path):
    save_weights({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="x.safetensors' does not fit this encoder: it has no 'patch_embed.proj.w"):
        small_dino(weights=f"folded:{tmp_path / 'x.safetensors'}")


# ---------------------------------------------------------------- DINOv3

WIDTH, HEADS, DEPTH, PATCH, STORAGE = 128, 2, 3, 16, 4


def small_dinov3():
    """The large variant's layout (heads of 64 channels) with random weights everywhere, biases and scales too."""
    torch.manual_seed(0)
    encoder = TimmEncoder(
        "vit_large_patch16_dinov3_qkvb",
        taps=(1, 3),
        model_args=dict(embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS),
        keep_rope_periods=True,
    )
    state = {name: 0.3 * torch.randn(value.shape) for name, value in encoder.model.state_dict().items()}
    # Published files hold the periods rounded to bfloat16.
    state["rope.periods"] = (100.0 ** (2 * torch.arange(16) / 32)).bfloat16().float()
    encoder.model.load_state_dict(state)
    return encoder, state


def rotate(x, row, column, grid, periods):
    """Rotary position of one patch: 16 row angles and 16 column angles, twice; first and second half turn together."""
    coordinates = (2 * (row + 0.5) / grid[0] - 1, 2 * (column + 0.5) / grid[1] - 1)
    angles = torch.cat([2 * math.pi * coordinate / periods for coordinate in coordinates]).repeat(2)
    turned = torch.cat([-x[..., 32:], x[..., :32]], dim=-1)
    return x * angles.cos() + turned * angles.sin()


def slow_dinov3(state, image, taps):
    grid = (image.shape[1] // PATCH, image.shape[2] // PATCH)
    places = [(r, c) for r in range(grid[0]) for c in range(grid[1])]
    patches = [image[:, PATCH * r : PATCH * (r + 1), PATCH * c : PATCH * (c + 1)].flatten() for r, c in places]
    filters = state["patch_embed.proj.weight"].flatten(1)
    patches = torch.stack([filters @ patch + state["patch_embed.proj.bias"] for patch in patches])
    x = torch.cat([state["cls_token"][0], state["reg_token"][0], patches])

    def norm(tokens, name):
        return F.layer_norm(tokens, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    def linear(tokens, name):
        return F.linear(tokens, state[f"{name}.weight"], state[f"{name}.bias"])

    outputs = []
    for number in range(DEPTH):
        block = f"blocks.{number}."
        bias = torch.cat([state[block + "attn.q_bias"], torch.zeros(WIDTH), state[block + "attn.v_bias"]])
        qkv = F.linear(norm(x, block + "norm1"), state[block + "attn.qkv.weight"], bias)
        q, k, v = qkv.unflatten(1, (3, HEADS, 64)).permute(1, 2, 0, 3)
        q, k = q.clone(), k.clone()
        for index, (row, column) in enumerate(places, start=1 + STORAGE):
            for part in (q, k):
                part[:, index] = rotate(part[:, index], row, column, grid, state["rope.periods"])
        mixed = torch.softmax(q @ k.transpose(1, 2) / 8, dim=-1) @ v
        x = x + state[block + "gamma_1"] * linear(mixed.transpose(0, 1).flatten(1), block + "attn.proj")
        hidden = F.gelu(linear(norm(x, block + "norm2"), block + "mlp.fc1"))
        x = x + state[block + "gamma_2"] * linear(hidden, block + "mlp.fc2")
        if number + 1 in taps:
            outputs.append(norm(x, "norm")[1 + STORAGE :].T.unflatten(1, grid))
    return outputs


def test_dinov3_equals_its_description():
    encoder, state = small_dinov3()
    image = torch.randn(2, 3, 64, 96)
    found = encoder(image)
    for index in range(2):
        for ours, expected in zip(found.values(), slow_dinov3(state, image[index], (1, 3)), strict=True):
            torch.testing.assert_close(ours[index], expected, atol=1e-4, rtol=1e-4)


def test_dinov3_positions_come_from_the_stored_periods():
    encoder, state = small_dinov3()
    image = torch.randn(1, 3, 32, 48)
    before = encoder(image)["block3"]
    encoder.model.load_state_dict(state | {"rope.periods": 2 * state["rope.periods"]})
    assert not torch.allclose(encoder(image)["block3"], before, atol=1e-3)


def test_dinov3_is_the_same_in_train_mode():
    encoder, _ = small_dinov3()
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(encoder.train()(image)["block1"], encoder.eval()(image)["block1"])


def test_computed_periods_are_those_of_the_description():
    encoder = TimmEncoder(
        "vit_large_patch16_dinov3_qkvb", taps=(1,), model_args=dict(embed_dim=64, depth=1, num_heads=1)
    )
    torch.testing.assert_close(encoder.model.rope.periods, 100.0 ** (2 * torch.arange(16) / 32))
    assert "model.rope.periods" not in encoder.state_dict()
