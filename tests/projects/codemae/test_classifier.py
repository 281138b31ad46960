"""The classifier: what it pools, what learns, what is computed once, and what augmentation does to labels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmovseg.engine.optim import build_optimizer
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.codemae.modeling.classifier import ImageClassifier, Mixing
from mmovseg.projects.codemae.modeling.hivit import HiViT
from mmovseg.projects.codemae.modeling.masked_timm import MaskedViT

NORMS = {
    "optical_norm": PixelNorm(mean=[100.0] * 3, std=[40.0] * 3),
    "sar_norm": PixelNorm(mean=[-12.0, -18.0], std=[5.0, 5.0]),
}
CLASSES = ["boat", "car", "plane"]
PROBE = {"freeze_encoder": True, "cache_features": True, "learned_norm": False, "batch_norm": True, "init": "normal"}


def tiny_encoder(**changes):
    options = {"in_chans": {"optical": 3, "sar": 2}, "stem_dim": 8, "depths": (1, 1, 2), "num_heads": 2}
    return HiViT(**{**options, "unit_size": 8, "image_size": 16, "pyramid_dim": None, **changes})


def make(encoder=None, **options):
    return ImageClassifier(encoder or tiny_encoder(), classes=CLASSES, **{**NORMS, **options})


def inputs(count=4, *, multi=False, view=None, seed=0, size=16):
    rng = torch.Generator().manual_seed(seed)
    items = []
    for index in range(count):
        item = {
            "image": torch.randint(0, 256, (3, size, size), generator=rng, dtype=torch.uint8),
            "sar": torch.randn(2, size, size, generator=rng) * 5 - 15,
            "image_id": f"{seed}-{index}",
            "file_name": f"{index}.png",
            "label": torch.tensor([1.0, 0.0, 1.0]) if multi else torch.tensor(index % 3),
        }
        items.append(item if view is None else {**item, "view": view})
    return items


def count_encoded(model):
    seen, encode = [], model.encoder.encode

    def counted(images, **options):
        seen.append(sum(len(image) for image in images.values()))
        return encode(images, **options)

    model.encoder.encode = counted
    return seen


@pytest.mark.parametrize("sensor", ["optical", "sar", "both"])
def test_scores_are_a_line_over_normalised_means_of_tokens(sensor):
    model = make(sensor=sensor, **{**PROBE, "batch_norm": False}).eval()
    batch = inputs()
    scores = torch.stack([answer["class_scores"] for answer in model(batch)])
    parts = []
    for name, key in (("optical", "image"), ("sar", "sar")):
        if sensor in (name, "both"):
            x = torch.stack([NORMS[f"{name}_norm"](item[key]) for item in batch])
            tokens = model.encoder.encode({name: x}).tokens
            parts.append(F.layer_norm(tokens.mean(dim=1), (model.encoder.dim,), eps=1e-6))
    expected = model.head.linear(torch.cat(parts, dim=1))
    assert scores.shape == (4, 3) and torch.allclose(scores, expected, atol=1e-5)


def test_a_plain_vision_transformer_will_do():
    encoder = MaskedViT(
        name="vit_base_patch16_224",
        model_args={"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
        in_chans={"sar": 2},
        image_size=16,
    )
    assert make(encoder).eval()(inputs(2))[0]["class_scores"].shape == (3,)


def test_a_probe_learns_its_linear_layer_alone_and_encodes_every_image_once():
    model = make(**PROBE).train()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "head.linear.weight",
        "head.linear.bias",
    ]
    assert not model.encoder.training and model.head.training
    seen, batch = count_encoded(model), inputs(view=0)
    losses = [model(batch)["loss_classification"].item() for _ in range(3)]
    model.eval()
    model(batch[:2])
    assert seen == [4] and len(set(losses)) == 1
    model([*batch[:2], *inputs(2, view=0, seed=1)])
    assert seen == [4, 2]
    model(inputs(2))  # augmented ones say no view
    assert seen == [4, 2, 2]
    model.load_state_dict(model.state_dict())
    model(batch)
    assert seen[-1] == 4  # other weights, other features


def test_known_features_are_those_that_would_be_computed():
    model, batch = make(**{**PROBE, "sensor": "both"}).eval(), inputs(view=0)
    fresh = torch.stack([answer["class_scores"] for answer in model(batch)])
    again = torch.stack([answer["class_scores"] for answer in model(batch[::-1])]).flip(0)
    assert torch.equal(fresh, again)


def test_batch_norm_keeps_statistics_and_refuses_one_image():
    model = make(**PROBE).train()
    before = model.head.batch_norm.running_mean.clone()
    model(inputs())
    assert not torch.equal(before, model.head.batch_norm.running_mean)
    with pytest.raises(UserError, match="at least 2 images"):
        model(inputs(1))


def test_fine_tuning_moves_everything_and_decays_by_layer():
    model = make(tiny_encoder(in_chans={"sar": 2}, drop_path=0.1)).train()
    optimizer = build_optimizer(
        model, base_lr=1.0, layer_decay=0.5, decay_vectors=False, no_decay=["encoder.positions"], weight_decay=0.1
    )
    model(inputs())["loss_classification"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    groups = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    last = model.encoder.num_layers
    assert groups[id(model.encoder.positions)] == (0.5**last, 0.0)
    assert groups[id(model.encoder.blocks[-1].mlp.fc1.weight)] == (1.0, 0.1)
    assert groups[id(model.head.linear.weight)] == (1.0, 0.1) and groups[id(model.head.norm.weight)] == (1.0, 0.0)


def test_what_no_image_goes_through_does_not_learn():
    model = make(tiny_encoder(pyramid_dim=8), sensor="sar").train()
    model(inputs())["loss_classification"].backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith(("encoder.embed.optical", "encoder.pyramid")) for name in learning)


def test_losses_are_the_textbook_ones():
    model, batch = make(label_smoothing=0.1), inputs()
    scores = torch.randn(4, 3)
    targets = model._targets(batch)
    smooth = torch.full((4, 3), 0.1 / 3).scatter_(1, targets[:, None], 0.9 + 0.1 / 3)
    expected = -(smooth * scores.log_softmax(dim=1)).sum(dim=1).mean()
    assert torch.allclose(model._loss(scores, targets), expected)
    several = make(multi_label=True)
    labels = several._targets(inputs(multi=True))
    expected = -(labels * F.logsigmoid(scores) + (1 - labels) * F.logsigmoid(-scores)).mean()
    assert torch.allclose(several._loss(scores, labels), expected)


def test_mixing_and_smoothing_keep_the_sum_of_targets_and_move_both_sensors_alike():
    model = make(sensor="both", mixing=Mixing(), label_smoothing=0.1).train()
    images, targets = model._images(inputs()), model._targets(inputs())
    np.random.seed(1)
    mixed, soft = model._augment({name: image.clone() for name, image in images.items()}, targets)
    assert soft.shape == (4, 3) and torch.allclose(soft.sum(dim=1), torch.ones(4))
    assert not torch.equal(mixed["sar"], images["sar"])
    moved = {name: (mixed[name] != images[name]).any(dim=1) for name in images}
    assert torch.equal(moved["optical"], moved["sar"])
    with pytest.raises(UserError, match="even number"):
        model(inputs(3))


def test_erasing_puts_noise_on_a_rectangle_and_only_in_training():
    model = make(erase_prob=1.0)
    images, targets = model._images(inputs()), model._targets(inputs())
    erased, same = model._augment({"sar": images["sar"].clone()}, targets)
    assert torch.equal(same, targets)
    assert 0.0 < float((erased["sar"] != images["sar"]).float().mean()) < 0.5
    model.eval()
    first, second = (torch.stack([answer["class_scores"] for answer in model(inputs())]) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sensor": "radar"}, "unknown sensor 'radar'"),
        ({"sensor": "both", "optical_norm": None}, "needs model.optical_norm"),
        ({"multi_label": True, "label_smoothing": 0.1}, "of one class"),
        ({"freeze_encoder": True, "cache_features": True, "erase_prob": 0.5}, "stay as they are"),
        ({"erase_prob": 2.0}, "erase_prob 2.0"),
    ],
)
def test_bad_options_get_a_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence):
        make(**options)


def test_bad_inputs_get_a_sentence():
    model = make().train()
    for change, sentence in (
        ({"label": torch.tensor(3)}, "not one of the 3 classes"),
        ({"label": torch.tensor([1.0, 0.0, 1.0])}, "not one of the 3 classes"),
        ({"sar": torch.zeros(2, 24, 16)}, "differ in size"),
    ):
        with pytest.raises(UserError, match=sentence):
            model([*inputs(3), {**inputs(1)[0], **change}])
    without = inputs(2)
    for item in without:
        del item["sar"]
    with pytest.raises(UserError, match="reads 'sar', which is missing in '0.png'"):
        model(without)
    with pytest.raises(UserError, match="3 classes"):
        make(multi_label=True).train()(inputs(2))
