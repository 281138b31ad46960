"""UPerNet's head and the segmentation model around it."""

import pytest
import torch
from detectron2.layers import ShapeSpec

from mmovseg.data.vocabulary import closed_vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.codemae.modeling.hivit import HiViT
from mmovseg.projects.codemae.modeling.segmentor import EncoderSegmentor
from mmovseg.projects.codemae.modeling.upernet import ConvHead, UPerNetHead, make_norm
from mmovseg.testing.checks import assert_scored_as_alone, random_inputs

CLASSES = closed_vocabulary("miniearth")
SHAPES = {"p2": (8, 2), "p4": (12, 4), "p8": (16, 8), "p16": (16, 16)}


def shapes(names=tuple(SHAPES)):
    return {name: ShapeSpec(channels=SHAPES[name][0], stride=SHAPES[name][1]) for name in names}


def features(height, width, count=2):
    return {name: torch.randn(count, c, -(-height // s), -(-width // s)) for name, (c, s) in SHAPES.items()}


def encoder(sensors=("optical", "sar"), **settings):
    return HiViT(
        in_chans={name: {"optical": 3, "sar": 2}[name] for name in sensors},
        stem_dim=8, depths=(1, 1, 2), num_heads=2, unit_size=8, image_size=32, pyramid_dim=8,
        out_features=("p2", "p4", "p8", "p16"), coarse_pool="max", **settings,
    )  # fmt: skip


def segmentor(modality="optical", **settings):
    torch.manual_seed(0)
    sensors = ("optical", "sar") if modality == "both" else (modality,)
    return EncoderSegmentor(
        vocabulary=CLASSES,
        modality=modality,
        **{
            "encoder": settings.get("encoder") or encoder(sensors),
            "optical_norm": PixelNorm(mean=[127.0] * 3, std=[60.0] * 3),
            "sar_norm": PixelNorm(mean=[-15.0] * 2, std=[4.0] * 2),
            "head": {"channels": 16},
            "auxiliary": {"channels": 8},
            **settings,
        },
    )


@pytest.mark.parametrize("size", [(32, 32), (24, 56), (8, 8)])
def test_the_head_answers_on_the_finest_grid_for_any_size(size):
    head = UPerNetHead(shapes(), num_classes=5, channels=16)
    assert head(features(*size)).shape == (2, 5, size[0] // 2, size[1] // 2)


def test_every_part_of_the_head_gets_a_gradient_and_every_level_counts():
    head = UPerNetHead(shapes(), num_classes=5, channels=16, dropout=0.0)
    levels = {name: level.requires_grad_() for name, level in features(32, 32).items()}
    head(levels).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert all(level.grad.abs().sum() > 0 for level in levels.values())


def test_context_reaches_every_place():
    head = UPerNetHead(shapes(), num_classes=2, channels=16, norm="batch").eval()  # group norm would reach it as well
    levels = {name: level.requires_grad_() for name, level in features(128, 128, 1).items()}
    head(levels)[0, 0, 0, 0].backward()
    assert levels["p16"].grad[0, :, -1, -1].abs().sum() > 0  # by pooling, across the whole image
    assert levels["p2"].grad[0, :, -1, -1].abs().sum() == 0


def test_widths_of_the_paper():
    paper = {name: ShapeSpec(channels=256, stride=stride) for name, stride in zip("abcd", (4, 8, 16, 32), strict=True)}
    head = UPerNetHead(paper, num_classes=7, channels=768, norm="batch")
    c, n = 256, 768
    norms = 2 * n * (4 + 1 + 3 + 3 + 1)
    weights = 4 * c * n + 9 * (c + 4 * n) * n + 3 * c * n + 3 * 9 * n * n + 9 * 4 * n * n + (n + 1) * 7
    assert sum(p.numel() for p in head.parameters()) == weights + norms
    assert ConvHead(paper, num_classes=7).level == "c"


@pytest.mark.parametrize(("channels", "groups"), [(768, 48), (48, 3), (24, 1), (10, 1), (40, 2)])
def test_groups_hold_about_16_channels(channels, groups):
    assert make_norm("group", channels).num_groups == groups


def test_group_norm_takes_one_image_at_a_time():
    head = UPerNetHead(shapes(), num_classes=5, channels=16, dropout=0.0).train()
    levels = features(32, 32, 3)
    alone = torch.cat([head({name: level[i : i + 1] for name, level in levels.items()}) for i in range(3)])
    assert torch.allclose(head(levels), alone, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "sync"])
def test_norms_over_the_batch_train_on_the_cpu(norm):
    head = UPerNetHead(shapes(), num_classes=5, channels=16, norm=norm).train()
    head(features(32, 32, 4)).sum().backward()
    assert head.fusion[0].weight.grad is not None


@pytest.mark.parametrize("modality", ["optical", "sar", "both"])
def test_training_and_inference(modality):
    model, inputs = segmentor(modality), random_inputs(CLASSES, ((32, 32), (28, 41)))
    losses = model.train()(inputs)
    assert set(losses) == {"loss_sem_seg", "loss_auxiliary"}
    sum(losses.values()).backward()
    # all weights take part, as a group of processes needs it
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        answers = model.eval()(inputs)
    assert [tuple(answer["sem_seg"].shape) for answer in answers] == [(7, 32, 32), (7, 28, 41)]


def test_the_embedding_of_a_sensor_that_is_not_read_is_frozen():
    model = EncoderSegmentor(
        encoder=encoder(), vocabulary=CLASSES, modality="sar", sar_norm=PixelNorm(mean=[-15.0] * 2, std=[4.0] * 2)
    )
    sum(model.train()(random_inputs(CLASSES)).values()).backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    assert idle == {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.rsplit(".", 2)[0] for name in idle} == {"encoder.embed.optical"}


def test_losses_start_near_chance_and_the_auxiliary_one_is_weighted():
    inputs = random_inputs(CLASSES)
    torch.manual_seed(1)
    full = segmentor(auxiliary_weight=1.0).train()(inputs)
    assert full["loss_sem_seg"].item() == pytest.approx(1.946, abs=0.1)  # ln 7
    torch.manual_seed(1)
    part = segmentor(auxiliary_weight=0.4).train()(inputs)["loss_auxiliary"].item()
    assert part == pytest.approx(0.4 * full["loss_auxiliary"].item(), rel=1e-3)
    assert "loss_auxiliary" not in segmentor(auxiliary=None).train()(inputs)


@pytest.mark.parametrize("sizes", [((40, 24), (40, 24)), ((40, 24), (64, 64), (32, 32), (40, 24))])
def test_an_image_is_scored_alike_alone_and_in_any_batch(sizes):
    assert_scored_as_alone(segmentor("both").eval(), random_inputs(CLASSES, sizes))


def test_one_window_of_the_whole_image_is_the_whole_image():
    inputs = random_inputs(CLASSES, ((32, 32), (24, 32)))
    with torch.no_grad():
        whole = segmentor().eval()(inputs[:1])[0]["sem_seg"]
        windows = segmentor(window=32).eval()(inputs[:1])[0]["sem_seg"]
        assert torch.allclose(whole, windows, atol=1e-5)
        assert segmentor(window=16, window_stride=8).eval()(inputs)[1]["sem_seg"].shape == (7, 24, 32)


def test_windows_are_averaged_where_they_overlap():
    model, item = segmentor(window=16, window_stride=8, windows_at_once=2).eval(), random_inputs(CLASSES, ((16, 40),))
    whole = segmentor().eval()
    with torch.no_grad():
        found = model(item)[0]["sem_seg"]
        total, count = torch.zeros(7, 16, 40), torch.zeros(16, 40)
        for left in (0, 8, 16, 24):
            part = [{**item[0], "image": item[0]["image"][:, :, left : left + 16], "height": 16, "width": 16}]
            del part[0]["valid"]
            total[:, :, left : left + 16] += whole(part)[0]["sem_seg"]
            count[:, left : left + 16] += 1
    assert torch.allclose(found, total / count, atol=1e-5)


def test_classes_are_asked_for_by_name_in_any_order():
    model, inputs = segmentor().eval(), random_inputs(CLASSES, ((32, 32),))
    with torch.no_grad():
        everything = model(inputs)[0]["sem_seg"]
        inputs[0]["vocabulary"] = vocabulary_from_names("water, road")
        chosen = model(inputs)[0]["sem_seg"]
    names = CLASSES.names
    assert torch.equal(chosen, everything[[names.index("water"), names.index("road")]])
    inputs[0]["vocabulary"] = vocabulary_from_names("water, airport")
    with pytest.raises(UserError, match="no class 'airport'"):
        model(inputs)


def test_labels_of_other_classes_are_refused():
    inputs = random_inputs(vocabulary_from_names("water, road"))
    with pytest.raises(UserError, match="labels of training are of water, road"):
        segmentor().train()(inputs)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: segmentor(head={"chanels": 3}), "UPerNetHead got an unexpected keyword argument 'chanels'"),
        (lambda: segmentor(head={"norm": "layer"}), "norm of a head is 'layer'"),
        (lambda: segmentor(auxiliary={"level": "p64"}), "wants the level 'p64'"),
        (lambda: segmentor(optical_norm=None), "needs optical_norm"),
        (lambda: EncoderSegmentor(encoder=encoder(), vocabulary=CLASSES, modality="all"), "got 'all'"),
        (lambda: segmentor(encoder=encoder(("sar",))), "reads optical, but its encoder has embeddings of: sar"),
        (lambda: segmentor(window=64, window_stride=80), "window_stride is 80"),
        (lambda: UPerNetHead(shapes(("p2",)), num_classes=2), "at least two levels"),
    ],
)
def test_bad_settings_are_named(call, words):
    with pytest.raises(UserError, match=words):
        call()


def test_a_missing_modality_is_named():
    with pytest.raises(UserError, match="needs 'sar'"):
        segmentor("both").eval()(random_inputs(CLASSES, ((32, 32),), modality="optical"))
