"""The HiViT encoder against a slow one, and what its docstrings promise."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmovseg.engine.optim import build_optimizer
from mmovseg.errors import UserError
from mmovseg.projects.codemae.modeling.blocks import UnitMerge
from mmovseg.projects.codemae.modeling.hivit import HiViT
from tests.projects.codemae import reference_hivit as reference

DEPTHS, HEADS = (2, 1, 2), 2
TINY = dict(stem_dim=8, depths=DEPTHS, num_heads=HEADS, unit_size=8, image_size=32, pyramid_dim=12)


def tiny(**changes):
    torch.manual_seed(0)
    model = HiViT(**{**TINY, "in_chans": {"optical": 3, "sar": 2}, **changes})
    for parameter in model.parameters():  # norms and biases away from 1 and 0, weights large enough to matter
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def images(height, width, count=1):
    torch.manual_seed(1)
    return {"optical": torch.randn(count, 3, height, width), "sar": torch.randn(count, 2, height, width)}


def without_attention(model):
    """Make the third stage work on every unit by itself."""
    for index in model.main_blocks:
        nn.init.zeros_(model.blocks[index].attn.proj.weight)
        nn.init.zeros_(model.blocks[index].attn.proj.bias)
    return model


@pytest.mark.parametrize(("depth", "size"), [(1, (32, 32)), (2, (24, 40))])
def test_equals_the_slow_encoder_forward_and_backward(depth, size):
    model = tiny(pyramid_depth=depth).double()
    batch = {sensor: image.double() for sensor, image in images(*size).items()}
    keep = torch.tensor([[7, 2, 11], [0, 14, 5]])
    features = model.encode(batch, keep=keep)
    outputs = [*features.levels.values(), features.tokens]
    grid = (size[0] // 8, size[1] // 8)
    factors = [(side + 0.1) / 4 for side in grid]
    table = model.positions.view(1, 4, 4, 32).permute(0, 3, 1, 2)
    table = table if grid == (4, 4) else F.interpolate(table, scale_factor=factors, mode="bicubic")
    positions = table[0].flatten(1).T
    slow = [[], [], [], []]
    for row, sensor in enumerate(("optical", "sar")):
        units = keep[row].tolist()
        levels, tokens = reference.encode_image(
            model, batch[sensor][0], sensor, units, depths=DEPTHS, heads=HEADS, positions=positions
        )
        for kept, found in zip(slow, [*levels, tokens], strict=True):
            kept.append(found)
    torch.manual_seed(2)
    expected = [torch.stack(rows) for rows in slow]
    weights = [torch.randn_like(found) for found in outputs]
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    own = torch.autograd.grad(sum((a * b).sum() for a, b in zip(outputs, weights, strict=True)), model.parameters())
    theirs = torch.autograd.grad(sum((a * b).sum() for a, b in zip(expected, weights, strict=True)), model.parameters())
    for (name, _), mine, other in zip(model.named_parameters(), own, theirs, strict=True):
        assert other.abs().max() > 0, name
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-7, msg=name)


def test_stages_without_attention_do_not_mix_units():
    model, batch = tiny(), images(32, 32)
    seen = {}
    for index, block in enumerate(model.blocks):
        if isinstance(block, UnitMerge):
            block.register_forward_pre_hook(lambda _, args, index=index: seen.__setitem__(index, args[0]))
    before = model.encode(batch)
    skips = dict(seen)
    batch["optical"][0, :, 8:16, 16:24] += 1.0  # unit 6
    after = model.encode(batch)
    others = [unit for unit in range(16) if unit != 6]
    for index, old in skips.items():
        assert torch.equal(seen[index][0, others], old[0, others])
        assert not torch.equal(seen[index][0, 6], old[0, 6])
    assert (before.tokens[0, others] != after.tokens[0, others]).any(dim=1).all()  # attention does mix them
    assert torch.equal(before.tokens[1], after.tokens[1])


def test_masked_units_leave_no_trace():
    model, batch = tiny(), images(32, 32)
    keep = torch.tensor([[1, 15, 4], [1, 15, 4]])
    before = model.encode(batch, keep=keep, middle_block=5)
    batch["sar"][0, :, 0:8, 0:8] = 100.0  # unit 0 is masked
    after = model.encode(batch, keep=keep, middle_block=5)
    assert torch.equal(before.tokens, after.tokens) and torch.equal(before.middle, after.middle)
    assert all(torch.equal(before.levels[name], after.levels[name]) for name in before.levels)


def test_masked_equals_unmasked_where_nothing_mixes_units():
    model, batch = without_attention(tiny()), images(24, 32, count=2)
    keep = torch.stack([torch.randperm(12)[:5] for _ in range(4)])
    rows = torch.arange(4)[:, None]
    everything, visible = model.encode(batch), model.encode(batch, keep=keep)
    assert list(visible.levels) == ["p8", "p4", "p2"]
    for name, level in visible.levels.items():
        torch.testing.assert_close(level, everything.levels[name][rows, keep], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(visible.tokens, everything.tokens[rows, keep], rtol=1e-5, atol=1e-5)


def test_both_sensors_together_equal_separate_calls():
    model, batch = tiny(), images(32, 32, count=3)
    keep = torch.stack([torch.randperm(16)[:4] for _ in range(6)])
    together = model.encode(batch, keep=keep, middle_block=6)
    for sensor, rows in (("optical", slice(0, 3)), ("sar", slice(3, 6))):
        alone = model.encode({sensor: batch[sensor]}, keep=keep[rows], middle_block=6)
        torch.testing.assert_close(together.tokens[rows], alone.tokens, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.middle[rows], alone.middle, rtol=1e-5, atol=1e-5)
        for name, level in alone.levels.items():
            torch.testing.assert_close(together.levels[name][rows], level, rtol=1e-5, atol=1e-5)


def test_visible_units_come_in_the_order_asked_for():
    model, batch = tiny(), images(32, 32)
    keep = torch.tensor([[9, 3, 0, 12], [5, 6, 7, 8]])
    shuffled = torch.tensor([2, 0, 3, 1])
    one, other = model.encode(batch, keep=keep), model.encode(batch, keep=keep[:, shuffled])
    torch.testing.assert_close(other.levels["p2"], one.levels["p2"][:, shuffled], rtol=1e-5, atol=1e-5)


def test_middle_is_the_output_of_the_block_asked_for():
    model, batch = tiny(), images(32, 32)
    features = model.encode(batch, middle_block=6)
    assert torch.equal(features.middle, features.tokens)  # the last of 7
    middle = model.encode(batch, middle_block=5).middle
    torch.testing.assert_close(model.blocks[6](middle), features.tokens)
    assert model.encode(batch).middle is None
    with pytest.raises(ValueError, match=r"middle_block is 4 but must lie in 5 \.\. 6"):
        model.encode(batch, middle_block=4)


def test_maps_have_the_announced_shapes_at_any_size():
    model = tiny(out_features=("p2", "p4", "p8", "p16", "p32", "tokens"), sensor="sar")
    for height, width in ((32, 32), (8, 8), (24, 40), (72, 16)):
        maps = model(images(height, width)["sar"])
        assert list(maps) == list(model.output_shape())
        for name, shape in model.output_shape().items():
            size = (1, shape.channels, -(-height // shape.stride), -(-width // shape.stride))
            assert tuple(maps[name].shape) == size, name
    assert model.output_shape()["tokens"].channels == model.dim == 32
    assert model.size_divisibility == 8


def test_maps_of_224_pixels_are_56_28_and_14_wide():
    model = tiny(unit_size=16, image_size=224)
    maps = model(torch.randn(1, 3, 224, 224), "optical")
    assert {name: tuple(level.shape[2:]) for name, level in maps.items()} == {
        "p4": (56, 56),
        "p8": (28, 28),
        "p16": (14, 14),
    }


def test_a_pixel_lands_in_its_cell():
    model = without_attention(tiny(sensor="optical"))
    nn.init.zeros_(model.pyramid.split8.reduction.weight)  # p2 then reads nothing but its own sub-token
    nn.init.zeros_(model.pyramid.split16.reduction.weight)
    image = images(24, 32)["optical"]
    before = model(image)
    image[0, 1, 13, 21] += 3.0
    changed = {
        name: sorted({tuple(place[2:]) for place in (level != before[name]).nonzero().tolist()})
        for name, level in model(image).items()
    }
    assert changed == {"p2": [(6, 10)], "p4": [(3, 5)], "p8": [(1, 2)]}


@pytest.mark.parametrize("pool", ["average", "max"])
def test_pooled_levels_read_only_what_is_there(pool):
    model = tiny(out_features=("p8", "p16", "p32"), coarse_pool=pool)
    maps = model(images(24, 40)["optical"], "optical")  # 3 x 5 units
    reduce = torch.mean if pool == "average" else torch.amax
    for fine, coarse in (("p8", "p16"), ("p16", "p32")):
        for row in range(maps[coarse].shape[2]):
            for column in range(maps[coarse].shape[3]):
                window = maps[fine][0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                torch.testing.assert_close(maps[coarse][0, :, row, column], reduce(window, dim=(1, 2)))


def test_forward_uses_the_embedding_it_is_told():
    model, batch = tiny(), images(32, 32)
    for sensor, image in batch.items():
        torch.testing.assert_close(model(image, sensor)["p2"].shape, (1, 12, 16, 16))
    with pytest.raises(UserError, match="several sensors"):
        model(batch["sar"])
    only = tiny(in_chans={"sar": 2})
    assert only.sensor == "sar" and only(batch["sar"])["p8"].shape == (1, 12, 4, 4)


def test_size_of_the_base_encoder():
    with torch.device("meta"):
        state = HiViT(in_chans={"optical": 3}).state_dict()
        bare = HiViT(in_chans={"optical": 3}, pyramid_dim=None).state_dict()
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (375, 81_552_000)
    assert round(sum(tensor.numel() for tensor in bare.values()) / 1e6, 2) == 77.90


def test_layer_decay_of_the_base_encoder():
    with torch.device("meta"):
        model = nn.ModuleDict({"encoder": HiViT(), "head": nn.Linear(2, 2)})
    optimizer = build_optimizer(model, base_lr=1.0, layer_decay=0.85)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    rates = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert len(rates) == len(list(model.parameters()))
    for name, power in {
        "embed.optical.proj.weight": 32,
        "embed.sar.norm.bias": 32,
        "positions": 32,
        "blocks.0.mlp.fc1.weight": 31,
        "blocks.3.reduction.weight": 28,
        "blocks.8.attn.qkv.weight": 23,
        "blocks.31.mlp.fc2.bias": 0,
        "pyramid.lateral4.weight": 0,
    }.items():
        assert rates[f"encoder.{name}"] == pytest.approx(0.85**power), name
    assert rates["head.weight"] == 1.0


def test_drop_path_rises_over_the_blocks_that_are_no_merges():
    model = tiny(depths=(2, 1, 3), drop_path=0.5)
    rates = []
    for block in model.blocks:
        if not isinstance(block, UnitMerge):
            branch = getattr(block, "drop_path", None) or block.drop_path1
            rates.append(getattr(branch, "drop_prob", 0.0))
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert {getattr(module, "drop_prob", 0.0) for module in model.pyramid.modules()} == {0.0}
    batch = images(32, 32)
    assert torch.equal(model.encode(batch).tokens, model.encode(batch).tokens)
    model.train()
    assert not torch.equal(model.encode(batch).tokens, model.encode(batch).tokens)


def test_checkpointing_changes_neither_values_nor_gradients():
    batch = images(32, 32)
    found = []
    for checkpointing in (False, True):
        model, runs = tiny(checkpointing=checkpointing, drop_path=0.3).train(), []
        for index, block in enumerate(model.blocks):
            block.register_forward_pre_hook(lambda *_, index=index, runs=runs: runs.append(index))
        torch.manual_seed(3)
        features = model.encode(batch)
        (features.tokens.sum() + sum(level.square().sum() for level in features.levels.values())).backward()
        found.append((features.tokens, [parameter.grad for parameter in model.parameters()]))
        order = list(range(len(model.blocks)))
        assert runs == order + order[::-1] * checkpointing
    assert torch.equal(found[0][0], found[1][0])
    for plain, recomputed in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_a_frozen_encoder_stays_as_it_is():
    model = HiViT(**TINY, freeze=True, drop_path=0.5).train()
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert not model(torch.randn(1, 3, 32, 32, requires_grad=True), "optical")["p2"].requires_grad


def test_without_pyramid_there_are_tokens_only():
    model = tiny(pyramid_dim=None, sensor="sar")
    maps = model(images(24, 40)["sar"])
    assert {name: tuple(level.shape) for name, level in maps.items()} == {"tokens": (1, 32, 3, 5)}
    features = model.encode(images(24, 40))
    assert features.levels == {} and model.level_dims == {}
    assert torch.equal(maps["tokens"][0, :, 1, 2], model.encode({"sar": images(24, 40)["sar"]}).tokens[0, 7])
    assert tiny().encode(images(32, 32), with_levels=False).levels == {}


def test_autocast_changes_little():
    model, batch = tiny(), images(32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.encode(batch)
    torch.testing.assert_close(rough.tokens.float(), model.encode(batch).tokens, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_chans": {"lidar": 1}}, "must name optical, sar or both, got {'lidar': 1}"),
        ({"in_chans": {}}, "must name optical, sar or both"),
        ({"sensor": "sar", "in_chans": {"optical": 3}}, "no patch embedding of 'sar'; it has: optical"),
        ({"depths": (1, 1)}, r"three stages, got depths=\(1, 1\)"),
        ({"unit_size": 6}, "multiple of 4"),
        ({"image_size": 36}, "got 8 and 36"),
        ({"num_heads": 5}, "multiple of num_heads=5"),
        ({"out_features": ("p64",)}, "no output 'p64' in out_features; it has: p2, p4, p8, p16, p32, tokens"),
        ({"out_features": ("p8",), "pyramid_dim": None}, "no output 'p8' in out_features; it has: tokens"),
        ({"coarse_pool": "median"}, "coarse_pool of the encoder is 'median'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        HiViT(**{**TINY, **settings})


def test_wrong_images_are_refused():
    model, batch = tiny(), images(32, 32)
    with pytest.raises(UserError, match="image of 32 x 36 px does not divide into units of 8 px"):
        model(torch.randn(1, 3, 32, 36), "optical")
    with pytest.raises(UserError, match="one size"):
        model.encode({**batch, "sar": batch["sar"][..., :24]})
    with pytest.raises(UserError, match="no patch embedding of 'lidar'"):
        model.encode({"lidar": batch["sar"]})
    with pytest.raises(ValueError, match="keep has 1 rows for 2 images"):
        model.encode(batch, keep=torch.tensor([[0, 1]]))


def test_images_by_sensor_give_the_maps_of_separate_calls():
    model, batch = tiny(out_features=("p2", "p16", "tokens")), images(24, 40, count=2)
    together = model(batch)
    for sensor, rows in (("optical", slice(0, 2)), ("sar", slice(2, 4))):
        for name, level in model(batch[sensor], sensor).items():
            torch.testing.assert_close(together[name][rows], level, rtol=1e-5, atol=1e-5)
