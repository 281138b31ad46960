"""Pixels without data: place by place, the rules of an absent modality, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec

from mmovseg.layers.conv import fill_in, weigh_by_share
from mmovseg.modeling.fusion import CostAggregationHead, DualEncoderFusionHead
from mmovseg.modeling.fusion.dual_encoder import _Compared
from mmovseg.modeling.meta_arch.batching import batch_view, seen_by_any
from tests.modeling.conftest import build_xs, make_inputs
from tests.modeling.released_parts import small_model
from tests.modeling.test_clip_sar import build_with_clip_sar
from tests.modeling.test_released_model import NAMES

KEYS = {"optical": ("image", "valid"), "sar": ("sar", "sar_valid")}
OTHER = {"optical": "sar", "sar": "optical"}
WITHOUT = {"optical_encoder": None, "init_projection_from_clip": False}


def build_released():
    torch.manual_seed(0)
    return small_model(head={"window": 3, "class_padding": 8}).eval()


MODELS = {
    "paper": lambda: build_xs().eval(),
    "clip_sar": lambda: build_with_clip_sar().eval(),
    "clip and sar encoder": lambda: build_xs(**WITHOUT).eval(),
    "clip and clip_sar": lambda: build_with_clip_sar(**WITHOUT, sar_encoder=None).eval(),
    "released": build_released,
}


@pytest.fixture(scope="module", params=list(MODELS))
def any_model(request):
    return MODELS[request.param]()


def inputs_for(model, count=1, height=64, width=64, *, modality="both"):
    """Items with as many SAR channels as the model reads, and names that its tokenizer knows."""
    items = make_inputs(count, height, width, modality=modality, vocabulary=NAMES)
    channels = len(model.sar_norm.mean)
    for item in items:
        if "sar" in item:
            item["sar"] = item["sar"][:1].expand(channels, -1, -1) if channels > 2 else item["sar"]
    return items


def blank(items, modality, area=(slice(None), slice(None))):
    """Mark an area as without data."""
    key, mask = KEYS[modality]
    for item in items:
        item.setdefault(mask, torch.ones(item[key].shape[-2:], dtype=torch.bool))
        item[mask][area] = False
    return items


@torch.no_grad()
def scores(model, items):
    return [found["sem_seg"] for found in model(items)]


@pytest.mark.parametrize("size", [(64, 64), (61, 75)])
@pytest.mark.parametrize("modality", ["optical", "sar"])
def test_an_item_without_any_data_equals_an_absent_modality(any_model, modality, size):
    absent = scores(any_model, inputs_for(any_model, 1, *size, modality=OTHER[modality]))[0]
    items = inputs_for(any_model, 1, *size)
    beside = {**items[0]}  # with it in the batch nothing can be left out as a whole
    found = scores(any_model, [*blank([{**items[0]}], modality), beside])
    torch.testing.assert_close(found[0], absent, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], scores(any_model, items)[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


@pytest.mark.parametrize("size", [(64, 64), (61, 75)])
def test_masks_without_a_hole_change_no_bit(any_model, size):
    plain = scores(any_model, inputs_for(any_model, 2, *size))
    items = inputs_for(any_model, 2, *size)
    for modality in KEYS:
        blank(items, modality, (slice(0), slice(0)))
    assert all(item["valid"].all() and item["sar_valid"].all() for item in items)
    assert all(torch.equal(one, other) for one, other in zip(scores(any_model, items), plain, strict=True))


def test_scores_are_finite_where_no_sensor_sees_anything(any_model):
    items = inputs_for(any_model, 2)
    for modality in KEYS:
        blank(items, modality, (slice(None), slice(40)))
        blank(items[:1], modality)
    assert all(torch.isfinite(found).all() for found in scores(any_model, items))
    assert torch.isfinite(scores(any_model, items[:1])[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cosines_of_a_blank_are_zero_in_half_precision(dtype):
    feature = torch.randn(2, 8, 3, 5)
    feature[:, :, 1] = 0
    names = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    exact = _Compared.make(feature).similarity(names)
    found = _Compared.make(feature.to(dtype)).similarity(names)
    assert found.dtype == dtype and (found[:, :, 1] == 0).all()
    torch.testing.assert_close(found.float(), exact, atol=0.02, rtol=0)


@pytest.mark.parametrize(("modality", "part"), [("optical", "clip"), ("sar", "sar_encoder")])
def test_encoders_of_a_blank_batch_do_not_run(modality, part):
    model = build_xs().eval()
    ran = []
    module = model.sar_encoder if part == "sar_encoder" else model.clip.model.visual.conv1
    module.register_forward_hook(lambda *_: ran.append(part))
    items = blank(inputs_for(model, 2), modality)
    found = scores(model, items)
    assert not ran
    absent = scores(model, inputs_for(model, 2, modality=OTHER[modality]))
    assert all(torch.equal(one, other) for one, other in zip(found, absent, strict=True))


def test_a_blank_batch_still_trains_every_weight():
    model = build_xs().train()
    model(blank(make_inputs(2), "optical"))["loss_sem_seg"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


# ---------------------------------------------------------------- the heads, with features as they are given

SHAPES = {f"block{tap}": ShapeSpec(channels=6, stride=8) for tap in (1, 2, 3)}
CLIP_SHAPES = {f"block{tap}": ShapeSpec(channels=5, stride=8) for tap in (1, 2)}
GRID = (64, 384)
LEFT = (..., slice(0, 192))


def build_paper_head(clip_stride=8, **changes):
    torch.manual_seed(0)
    clip = {name: ShapeSpec(channels=5, stride=clip_stride) for name in CLIP_SHAPES}
    options = dict(strides=(8, 4, 16), channels=(4, 4, 4), guidance_channels=(3, 2), similarity_scale=10.0)
    return DualEncoderFusionHead(SHAPES, clip, embed_dim=7, **(options | changes)).eval()


def build_released_head():
    torch.manual_seed(0)
    widths = dict(channels=8, context_channels=4, level_channels=(6, 4), guidance_channels=(3, 2))
    return CostAggregationHead(
        SHAPES, CLIP_SHAPES, embed_dim=7, decoder_channels=(8, 4), num_heads=2, window=3, class_padding=4, **widths
    ).eval()


def make_features(clip_stride=8):
    generator = torch.Generator().manual_seed(1)

    def maps(channels, stride):
        return torch.randn(1, channels, GRID[0] // stride, GRID[1] // stride, generator=generator)

    text = torch.nn.functional.normalize(torch.randn(3, 7, generator=generator), dim=1)
    clip = {name: maps(5, clip_stride) for name in CLIP_SHAPES} | {"dense": maps(7, clip_stride)}
    dense = {modality: {name: maps(6, 8) for name in SHAPES} for modality in KEYS}
    return text, clip, dense


def holes(area=(...,)):
    mask = torch.ones(1, 1, *GRID, dtype=torch.bool)
    mask[area] = False
    return mask


HEADS = {
    "paper": (build_paper_head, 8),
    "paper, clip on a grid of its own": (lambda: build_paper_head(16), 16),
    "released": (build_released_head, 8),
}


@pytest.mark.parametrize("name", list(HEADS))
@torch.no_grad()
def test_heads_without_any_optical_pixel(name):
    build, stride = HEADS[name]
    head, (text, clip, dense) = build(), make_features(stride)
    none = holes()
    found = head(text, clip, dense, {"optical": none, "sar": None}, grid=GRID, clip_sees=none)
    expected = head(text, None, {"sar": dense["sar"]}, {}, grid=GRID)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    whole = head(text, clip, dense, {}, grid=GRID)
    assert torch.equal(head(text, clip, dense, {}, grid=GRID, clip_sees=None, dense_see=None), whole)
    full = holes((slice(0),))
    masked = head(text, clip, dense, {"optical": full, "sar": full}, grid=GRID, clip_sees=full, dense_see=full)
    torch.testing.assert_close(masked, whole, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", list(HEADS))
@torch.no_grad()
def test_heads_without_any_pixel_of_the_dense_encoders(name):
    build, stride = HEADS[name]
    head, (text, clip, dense) = build(), make_features(stride)
    none = holes()
    sar = {"sar": dense["sar"]}
    found = head(text, clip, sar, {"sar": none}, grid=GRID, dense_see=none)
    torch.testing.assert_close(found, head(text, clip, {}, {}, grid=GRID), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", list(HEADS))
@torch.no_grad()
def test_each_half_of_an_image_follows_its_own_branch(name):
    """Similarities and guidance; beyond them the head normalises over the whole map."""
    build, stride = HEADS[name]
    head, (text, clip, dense) = build(), make_features(stride)
    half = holes(LEFT)
    mixed, whole, sar = {}, {}, {}
    head(text, clip, dense, {"optical": half, "sar": None}, grid=GRID, clip_sees=half, explain=mixed)
    head(text, clip, dense, {}, grid=GRID, explain=whole)
    head(text, None, {"sar": dense["sar"]}, {}, grid=GRID, explain=sar)
    for stage in ("global_similarity", "dense_similarity", "fused"):
        width = mixed[stage].shape[-1]
        away = 7 if stage == "fused" else 0  # two 7x7 kernels and a resize reach across the border
        left, right = (..., slice(0, width // 2 - away)), (..., slice(width // 2 + away, None))
        assert width // 2 > away
        if mixed[stage].shape == sar[stage].shape:  # what stands in for CLIP's similarity has a grid of its own
            torch.testing.assert_close(mixed[stage][left], sar[stage][left], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(mixed[stage][right], whole[stage][right], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_guidance_is_zero_where_nothing_is_seen_and_unchanged_elsewhere():
    for build, arguments in ((build_paper_head, (None,)), (build_released_head, ())):
        head, (_, clip, dense) = build(), make_features()
        fused, half = head.dense(dense, {}), holes(LEFT)
        for step in range(2):
            size = (GRID[0] // head.strides[step], GRID[1] // head.strides[step])
            place = (size,) if arguments else (GRID,)
            plain = head._guide(step, clip, fused, *place, (None, None))
            found = head._guide(step, clip, fused, *place, (half, None))
            own = plain.shape[1] // 2  # CLIP's channels come first
            middle = size[1] // 2
            assert not found[:, :own, :, :middle].any() and plain[:, :own, :, :middle].any()
            assert torch.equal(found[:, own:], plain[:, own:])
            assert torch.equal(found[..., middle:], plain[..., middle:])


# ---------------------------------------------------------------- masks


def test_a_padded_pixel_counts_as_the_nearest_one():
    image = torch.zeros(3, 3, 4, dtype=torch.uint8)
    mask = torch.tensor([[True] * 4, [True] * 4, [True, False, True, False]])
    norm = build_xs().clip_norm
    view = batch_view([{"image": image, "valid": mask}], "image", "valid", norm, 6)
    rows, columns = [0, 1, 2, 2, 2, 2], [0, 1, 2, 3, 3, 3]
    assert torch.equal(view.seen[0, 0], mask[rows][:, columns])
    assert torch.equal(view.valid[0, 0, :3, :4], mask) and not view.valid[0, 0, 3:].any()
    released = batch_view([{"image": image, "valid": mask}], "image", "valid", norm, 6, padding_is_data=True)
    assert torch.equal(released.valid, view.seen)
    whole = batch_view([{"image": image}], "image", "valid", norm, 6)
    assert whole.seen is None and not whole.valid[..., 4:].any()
    assert seen_by_any([view, whole]) is None and seen_by_any([]) is None
    assert torch.equal(seen_by_any([view, view]), view.seen)


def test_shares_of_cells():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)[None, None]
    x, y = torch.full((1, 2, 1, 2), 4.0), torch.full((1, 2, 1, 2), 8.0)
    assert weigh_by_share(x, mask)[0, 1].tolist() == [[3.0, 0.0]]
    assert fill_in(x, y, mask)[0, 0].tolist() == [[5.0, 8.0]]
    assert weigh_by_share(x, None) is x and fill_in(x, y, None) is x
