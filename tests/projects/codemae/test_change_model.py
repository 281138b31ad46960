"""The change model: heads, losses, gate, two dates of one sensor and of two."""

import pytest
import torch
from detectron2.layers import ShapeSpec

from mmovseg.data.vocabulary import closed_vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.losses import lovasz_softmax, pixel_cross_entropy
from mmovseg.projects.codemae.modeling.damage import ChangeDetector, ChangeHead, ResidualBlock
from mmovseg.projects.codemae.modeling.hivit import HiViT
from mmovseg.testing.checks import assert_scored_as_alone, random_inputs

DAMAGE, CHANGE = closed_vocabulary("building_damage"), closed_vocabulary("change")
NORMS = {
    "optical": PixelNorm(mean=[127.0] * 3, std=[60.0] * 3),
    "sar": PixelNorm(mean=[-15.0] * 2, std=[4.0] * 2),
}


def detector(before="optical", after="sar", vocabulary=DAMAGE, **settings):
    torch.manual_seed(0)
    sensors = dict.fromkeys((before, after))
    encoder = HiViT(
        in_chans={name: len(NORMS[name].mean) for name in sensors},
        stem_dim=8, depths=(1, 1, 2), num_heads=2, unit_size=8, image_size=32, pyramid_dim=8,
        out_features=("p2", "p4", "p8", "p16"), coarse_pool="max",
    )  # fmt: skip
    return ChangeDetector(
        encoder=encoder,
        vocabulary=vocabulary,
        before=before,
        after=after,
        **{"before_norm": NORMS[before], "after_norm": NORMS[after], "head": {"channels": 8}, **settings},
    )


def pairs(*sizes, vocabulary=DAMAGE, channels=2):
    return random_inputs(vocabulary, sizes or ((32, 32), (32, 32)), polarisations=channels)


def test_the_residual_block_is_two_convolutions_beside_one():
    block = ResidualBlock(5, 4, "batch").eval()
    x = torch.randn(2, 5, 6, 7)
    with torch.no_grad():
        inner = torch.relu(block.norm1(block.conv1(x)))
        expected = torch.relu(block.norm2(block.conv2(inner)) + block.shortcut(x))
        assert torch.allclose(block(x), expected)
    assert block.conv1.bias is None and block.conv2.bias is None and block.shortcut.bias is not None


def test_the_head_of_the_paper_has_the_size_of_the_release():
    shapes = {f"p{stride}": ShapeSpec(channels=256, stride=stride) for stride in (4, 8, 16, 32)}
    head = ChangeHead(shapes, num_classes=4, channels=256, norm="batch")
    date = 9 * 1024 * 256 + 9 * 256 * 256 + 4 * 256 + 1024 * 256 + 256
    both = 9 * 512 * 256 + 9 * 256 * 256 + 4 * 256 + 512 * 256 + 256
    assert sum(p.numel() for p in head.parameters()) == 2 * date + both + 257 * 2 + 257 * 4


def test_buildings_are_told_by_the_earlier_date_alone():
    shapes = {"p2": ShapeSpec(channels=4, stride=2), "p4": ShapeSpec(channels=4, stride=4)}
    head = ChangeHead(shapes, num_classes=4, channels=8).eval()
    one, two = ({"p2": torch.randn(1, 4, 8, 8), "p4": torch.randn(1, 4, 4, 4)} for _ in range(2))
    with torch.no_grad():
        first, other = head(one, two), head(one, one)
    assert torch.equal(first[:, 4:], other[:, 4:]) and not torch.allclose(first[:, :4], other[:, :4])


def test_losses_are_the_weighted_ones_of_the_release():
    model, inputs = detector().train(), pairs()
    losses = model(inputs)
    target = torch.stack([item["sem_seg"] for item in inputs])
    building = torch.where(target == 255, target, (target > 0).long())
    with torch.no_grad():
        scores = model._score(model._views(inputs))
    expected = {
        "loss_damage": 2.0 * pixel_cross_entropy(scores[:, :4], target),
        "loss_building": pixel_cross_entropy(scores[:, 4:], building),
        "loss_lovasz_damage": lovasz_softmax(scores[:, :4], target),
        "loss_lovasz_building": 0.5 * lovasz_softmax(scores[:, 4:], building),
    }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5)
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_weight_of_zero_leaves_a_loss_out():
    losses = detector(loss_weights={"lovasz_damage": 0.0, "lovasz_building": 0}).train()(pairs())
    assert set(losses) == {"loss_damage", "loss_building"}


def test_padding_costs_nothing():
    model, inputs = detector(), pairs((24, 24), (32, 32))
    inputs[1]["sem_seg"][:] = 255
    alone = model.train()(inputs[:1])
    both = model(inputs)
    assert both["loss_damage"].item() == pytest.approx(alone["loss_damage"].item(), rel=0.2)
    inputs[0]["sem_seg"][:] = 255
    assert sum(model(inputs).values()).item() == 0


def test_the_gate_multiplies_both_decisions(monkeypatch):
    gated, free, inputs = detector().eval(), detector(gate=False).eval(), pairs((32, 32), (24, 40))
    scores = 5 * torch.randn(2, 6, 32, 40)
    for model in (gated, free):
        monkeypatch.setattr(model, "_score", lambda images: scores)
    for answer, without in zip(gated(inputs), free(inputs), strict=True):
        building = without["building"]
        assert 0.2 < building.float().mean() < 0.8 and torch.equal(answer["building"], building)
        assert torch.equal(answer["sem_seg"].argmax(dim=0), without["sem_seg"].argmax(dim=0) * building)
        assert torch.equal(answer["sem_seg"][:, building], without["sem_seg"][:, building])
        odds = answer["sem_seg"].softmax(dim=0)[1:].sum(dim=0)
        assert odds[~building].max() < 1e-8


def test_both_sensors_go_through_one_pass_with_their_own_embedding():
    model, inputs = detector().eval(), pairs()
    calls = []
    model.encoder.register_forward_hook(lambda module, given, out: calls.append(given[0]))
    with torch.no_grad():
        model(inputs)
    assert len(calls) == 1 and list(calls[0]) == ["optical", "sar"]
    assert calls[0]["optical"].shape == (2, 3, 32, 32) and calls[0]["sar"].shape == (2, 2, 32, 32)


def test_the_dates_are_not_mixed_up():
    model, inputs = detector("sar", "optical", CHANGE, head={"channels": 8, "localise": False}).eval(), pairs()
    views = model._views(inputs)
    assert [view.shape[1] for view in views] == [2, 3]
    with torch.no_grad():
        halves = model.encoder({"sar": views[0], "optical": views[1]})["p4"].chunk(2)
        apart = [model.encoder(view, sensor=name)["p4"] for name, view in zip(("sar", "optical"), views, strict=True)]
    assert all(torch.allclose(half, other, atol=1e-5) for half, other in zip(halves, apart, strict=True))


def test_two_dates_of_one_sensor_come_stacked():
    model = detector("sar", "sar", CHANGE, head={"channels": 8, "localise": False})
    inputs = pairs(vocabulary=CHANGE, channels=4)
    before, after = model._views(inputs)
    norm = NORMS["sar"]
    assert torch.allclose(before[0], norm(inputs[0]["sar"][:2])) and torch.allclose(
        after[0], norm(inputs[0]["sar"][2:])
    )
    losses = model.train()(inputs)
    assert set(losses) == {"loss_damage", "loss_lovasz_damage"}
    with torch.no_grad():
        answer = model.eval()(inputs)[0]
    assert answer["sem_seg"].shape == (2, 32, 32) and "building" not in answer
    assert model.modality == "sar" and detector().modality == "both"
    with pytest.raises(UserError, match="has 2 channels"):
        model(pairs(vocabulary=CHANGE))


def test_windows_cut_both_dates():
    model, inputs = detector(window=16, window_stride=16).eval(), pairs((32, 48))
    whole = detector().eval()
    with torch.no_grad():
        found = model(inputs)[0]["sem_seg"][:, 16:, 16:32]
        part = {**inputs[0], "height": 16, "width": 16}
        for key in ("image", "sar", "valid", "sar_valid"):
            part[key] = part[key][..., 16:, 16:32]
        assert torch.allclose(found, whole([part])[0]["sem_seg"], atol=1e-5)


def test_a_pair_is_scored_alike_alone_and_in_any_batch():
    assert_scored_as_alone(detector().eval(), pairs((32, 32), (64, 40), (32, 32)))


def test_norms_can_differ_by_event():
    norm = SourceNorm(norms={"quake": NORMS["optical"], "flood": PixelNorm(mean=[0.0] * 3, std=[1.0] * 3)})
    model, inputs = detector(before_norm=norm), pairs()
    inputs[0]["source"], inputs[1]["source"] = "quake", "flood"
    before = model._views(inputs)[0]
    assert before[0].abs().mean() < 2 and torch.allclose(before[1], inputs[1]["image"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: detector(loss_weights={"dice": 1.0}), "names 'dice'"),
        (lambda: detector(head={"width": 8}), "ChangeHead got an unexpected keyword argument 'width'"),
        (lambda: detector(vocabulary=vocabulary_from_names("changed")), "at least two classes"),
        (lambda: detector().train()(random_inputs(DAMAGE, modality="optical")), "later date .* needs 'sar'"),
        (lambda: detector().eval()(random_inputs(DAMAGE, modality="sar")), "earlier date .* needs 'image'"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(UserError, match=words):
        call()


def test_an_unknown_sensor_is_named():
    encoder = detector().encoder
    with pytest.raises(UserError, match="'after' of the change model is 'radar'"):
        ChangeDetector(
            encoder=encoder, vocabulary=DAMAGE, before_norm=NORMS["optical"], after_norm=NORMS["sar"], after="radar"
        )
