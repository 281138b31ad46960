"""Segmentation from SAR: what the encoder is given, what trains, cached features, windows and experts."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.projects.crossearth.modeling.descriptors import SARDescriptors
from mmovseg.projects.crossearth.modeling.feature_cache import MOST_VERSIONS, FeatureCache
from mmovseg.projects.crossearth.modeling.moe_encoder import MoEEncoder
from mmovseg.projects.crossearth.modeling.segmentor import SARSegmentor
from mmovseg.testing.checks import assert_same_state, assert_scored_as_alone, random_inputs, tiny_vocabulary

CLASSES = tiny_vocabulary(3, 0)
NORM = PixelNorm(mean=[-15.0], std=[4.0])
MASKS = dict(
    name="Mask2FormerHead", dim=32, num_queries=5, pixel_layers=1, decoder_layers=1, num_heads=4, pixel_ffn_dim=16,
    decoder_ffn_dim=16, num_points=50,
)  # fmt: skip
VIT = dict(patch_size=4, embed_dim=16, depth=4, num_heads=2)


def moe(in_chans=1, **settings):
    return MoEEncoder(
        "vit_small_patch8_224", taps=(1, 2, 3, 4), in_chans=in_chans, image_size=16, model_args=VIT,
        **{"num_experts": 3, "descriptors": SARDescriptors(block=4), **settings},
    )  # fmt: skip


def model(encoder=None, *, head=None, **settings):
    torch.manual_seed(0)
    encoder = encoder if encoder is not None else moe()
    return SARSegmentor(
        encoder=encoder, vocabulary=CLASSES, head=head or {"name": "LinearHead"}, **{"sar_norm": NORM, **settings}
    )


def inputs(*sizes, bands=1, seed=0):
    return random_inputs(CLASSES, sizes or ((16, 16), (16, 16)), modality="sar", polarisations=bands, seed=seed)


class Recorder(Backbone):
    """Says what it was called with; maps are means over 4x4 pixels."""

    def __init__(self, reads_raw=True):
        super().__init__()
        self.reads_raw, self.calls = reads_raw, []

    size_divisibility = 4

    def output_shape(self):
        return {"map": ShapeSpec(channels=1, stride=4)}

    def forward(self, x, **more):
        self.calls.append((x, more))
        return {"map": nn.functional.avg_pool2d(x[:, :1], 4)}


@pytest.mark.parametrize("head", [MASKS, {"name": "LinearHead"}])
def test_a_step_trains_everything_and_experts_are_balanced(head):
    whole = model(head=head).train()
    losses = whole(inputs((16, 16), (12, 14)))
    own = {"loss_sem_seg"} if head["name"] == "LinearHead" else {"loss_class", "loss_mask", "loss_dice"}
    assert set(losses) == own | {"loss_moe_balance"}
    assert losses["loss_moe_balance"].item() == pytest.approx(0.005, rel=0.6)
    sum(losses.values()).backward()
    assert [name for name, p in whole.named_parameters() if p.requires_grad and p.grad is None] == []
    assert any(name.startswith("encoder") for name, p in whole.named_parameters() if p.requires_grad)


def test_a_frozen_encoder_stays_as_it_is_and_has_no_losses():
    whole = model(moe(freeze=True)).train()
    before = {name: value.clone() for name, value in whole.encoder.state_dict().items()}
    losses = whole(inputs())
    assert set(losses) == {"loss_sem_seg"} and not whole.encoder.training and whole.head.training
    optimizer = torch.optim.SGD(whole.parameters(), 1.0)
    sum(losses.values()).backward()
    optimizer.step()
    assert_same_state(whole.encoder.state_dict(), before)
    assert whole.head.classifier.weight.grad.abs().sum() > 0


def test_the_encoder_gets_the_raster_itself_and_where_there_is_data():
    recorder = Recorder()
    items = inputs((8, 8), (6, 7))
    items[0]["sar"][0, 2, 3] = torch.nan
    items[1]["sar_valid"][1, 1] = False
    model(recorder).train()(items)
    x, more = recorder.calls[0]
    raw, valid = more["raw"], more["valid"]
    assert x.shape == raw.shape == (2, 1, 8, 8) and valid.shape == (2, 8, 8) and valid.dtype == torch.bool
    expected = torch.ones(2, 8, 8, dtype=torch.bool)
    expected[0, 2, 3] = expected[1, 1, 1] = False
    expected[1, 6:] = expected[1, :, 7:] = False
    assert torch.equal(valid, expected)
    assert torch.equal(raw[0, 0][valid[0]], items[0]["sar"][0][valid[0]])
    assert torch.equal(raw[1, 0, :6, :7][valid[1, :6, :7]], items[1]["sar"][0][valid[1, :6, :7]])
    assert torch.allclose(x[:, 0][valid], (raw[:, 0][valid] + 15) / 4)
    assert (raw[:, 0][~valid] == 0).all() and (x[:, 0][~valid] == 0).all()


def test_windows_of_image_raster_and_data_are_cut_alike():
    recorder = Recorder()
    items = inputs((16, 24))
    with torch.no_grad():
        answer = model(recorder, window=16, window_stride=8).eval()(items)
    assert answer[0]["sem_seg"].shape == (3, 16, 24)
    x, more = recorder.calls[0]
    assert torch.equal(more["raw"][1, 0], items[0]["sar"][0, :, 8:24]) and bool(more["valid"].all())
    assert torch.allclose(x, (more["raw"] + 15) / 4)


def test_an_encoder_that_does_not_ask_gets_the_image_alone():
    recorder = Recorder(reads_raw=False)
    model(recorder).train()(inputs())
    assert recorder.calls[0][1] == {}
    plain = TimmEncoder("vit_small_patch8_224", taps=(2,), in_chans=1, image_size=16, model_args=VIT, freeze=False)
    assert set(model(plain).train()(inputs())) == {"loss_sem_seg"}


def test_one_band_is_repeated_to_the_channels_of_the_constants():
    three = PixelNorm(mean=[-15.0, -14.0, -13.0], std=[4.0, 3.0, 2.0])
    whole = model(moe(in_chans=3), sar_norm=three).eval()
    items = inputs()
    with torch.no_grad():
        found = whole(items)
        expected = whole([{**item, "sar": item["sar"].repeat(3, 1, 1)} for item in items])
    assert all(torch.equal(one["sem_seg"], other["sem_seg"]) for one, other in zip(found, expected, strict=True))
    assert items[0]["sar"].shape[0] == 1
    with pytest.raises(UserError, match="expected 3 channels, got 2"):
        whole(inputs(bands=2))


def test_scores_of_masks_are_logarithms_of_shares():
    whole = model(head=MASKS).eval()
    items = inputs((16, 16), (10, 15))
    with torch.no_grad():
        answers = whole(items)
        bare = whole.head(whole.encoder(*(view for view in whole._views(items[:1])[:1]), raw=items[0]["sar"][None]))[0]
    assert [tuple(answer["sem_seg"].shape) for answer in answers] == [(3, 16, 16), (3, 10, 15)]
    shares = answers[0]["sem_seg"].softmax(dim=0)
    assert torch.allclose(shares, bare[0] / bare[0].sum(dim=0), atol=1e-4)
    assert torch.allclose(answers[0]["sem_seg"].exp().sum(dim=0), torch.ones(16, 16), atol=1e-4)


def test_choices_of_experts_come_with_each_image():
    whole, items = model().eval(), inputs((16, 16), (16, 16), (16, 16))
    with torch.no_grad():
        together = [answer["expert_counts"] for answer in whole(items)]
        alone = [whole([item])[0]["expert_counts"] for item in items]
    assert list(together[0]) == ["block1", "block2", "block3", "block4"]
    for one, other in zip(together, alone, strict=True):
        assert all(torch.equal(one[block], other[block]) for block in one)
        assert all(int(counts.sum()) == 17 for counts in one.values())  # 4x4 patches and the class token
    with torch.no_grad():
        cut = model(window=8, window_stride=8, windows_at_once=3).eval()(items)
    assert all(int(counts.sum()) == 4 * 5 for answer in cut for counts in answer["expert_counts"].values())
    dense = model(moe(num_experts=None)).eval()
    assert "expert_counts" not in dense(items)[0]


@pytest.mark.parametrize("head", [MASKS, {"name": "LinearHead"}])
def test_an_image_is_scored_alike_alone_and_in_any_batch(head):
    whole, items = model(head=head).eval(), inputs((16, 16), (24, 32), (14, 15), (24, 32))
    assert_scored_as_alone(whole, items)
    with torch.no_grad():
        for item, found in zip(items, whole(items), strict=True):
            alone = whole([item])[0]["expert_counts"]
            assert all(torch.equal(counts, alone[block]) for block, counts in found["expert_counts"].items())


def counted(whole):
    """Let the encoder count the images that it sees."""
    seen = []
    whole.encoder.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    return seen


def test_cached_features_give_the_same_losses_and_spare_the_encoder():
    items = inputs((16, 16), (16, 16), (16, 16))
    batches = [items[:2], items[1:], [items[2], items[0]]]
    plain, cached = model(moe(freeze=True)).train(), model(moe(freeze=True), feature_cache_mb=8).train()
    cached.load_state_dict(plain.state_dict())
    seen = counted(cached)
    for batch in batches:
        losses = [whole(batch)["loss_sem_seg"] for whole in (plain, cached)]
        assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-6)
        losses[1].backward()
    assert seen == [2, 1]  # each image once
    with torch.no_grad():
        cached.eval()(items)
    assert seen == [2, 1, 3]  # at test nothing is kept


def test_the_cache_knows_contents_and_not_names():
    """A flipped image, other data, another padding: other features."""
    cached = model(moe(freeze=True), feature_cache_mb=8).train()
    seen, item = counted(cached), inputs((16, 16))[0]
    flipped = {**item, "sar": item["sar"].flip(-1)}
    holes = {**item, "sar_valid": item["sar_valid"].clone()}
    holes["sar_valid"][3:9] = False
    for version in (item, flipped, holes, item, flipped, holes):
        cached([version])
    assert seen == [1, 1, 1]
    cached([item, *inputs((24, 16), seed=1)])  # padded now
    assert seen == [1, 1, 1, 2]
    cached.encoder.load_state_dict(cached.encoder.state_dict())  # other weights, for all it knows
    cached([item])
    assert seen == [1, 1, 1, 2, 1]


def test_features_of_one_precision_are_not_used_in_another():
    plain, cached = model(moe(freeze=True)).train(), model(moe(freeze=True), feature_cache_mb=8).train()
    cached.load_state_dict(plain.state_dict())
    items, seen, losses = inputs((16, 16)), counted(cached), []
    for enabled in (True, False, True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(cached(items)["loss_sem_seg"].item())
    assert seen == [1, 1] and losses[:2] == losses[2:]
    assert losses[1] == pytest.approx(plain(items)["loss_sem_seg"].item(), abs=1e-6) and losses[0] != losses[1]


def test_images_that_never_come_back_are_refused():
    cached, item = model(moe(freeze=True), feature_cache_mb=8).train(), inputs((16, 16))[0]
    for shift in range(MOST_VERSIONS):
        cached([{**item, "sar": item["sar"] + shift}])
    with pytest.raises(UserError, match="image '000' came in more than 16 versions"):
        cached([{**item, "sar": item["sar"] - 1}])


def test_a_full_cache_goes_on_without(caplog):
    cache = FeatureCache(1)
    items, calls = inputs((16, 16), (16, 16)), []

    def compute(rows):
        calls.append(rows)
        return {"map": torch.full((len(rows), 200, 1024), float(len(calls)))}  # 800 KB an image

    for _ in range(2):
        found = cache.get(items, (16, 16), torch.device("cpu"), compute)["map"]
    assert calls == [[0, 1], [1]] and len(cache) == 1
    assert found[:, 0, 0].tolist() == [1.0, 2.0]
    assert caplog.text.count("feature cache is full (1 MB, 1 images)") == 1


def test_heads_of_detectron2_fit():
    whole = model(head={"name": "SemSegFPNHead", "conv_dims": 8, "common_stride": 4, "ignore_value": 255})
    assert set(whole.train()(inputs())) == {"loss_sem_seg", "loss_moe_balance"}
    with torch.no_grad():
        assert whole.eval()(inputs((16, 12)))[0]["sem_seg"].shape == (3, 16, 12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: model(head={"name": "MaskHead"}), "model.head.name is 'MaskHead' but must be one of .*LinearHead"),
        (lambda: model(head={"name": "LinearHead", "dim": 3}), "LinearHead got an unexpected keyword argument 'dim'"),
        (lambda: model(feature_cache_mb=5), "needs a frozen encoder .* but 'model.*' trains"),
        (lambda: model(moe(freeze=True), feature_cache_mb=0), "feature_cache_mb is 0"),
        (
            lambda: model()(random_inputs(CLASSES, ((16, 16),), modality="optical")),
            "the model reads 'sar', which input 'random/000' lacks",
        ),
    ],
)
def test_bad_settings_and_inputs_are_named(call, words):
    with pytest.raises(UserError, match=words):
        call()
