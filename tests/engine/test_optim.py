import pytest
import torch
from torch import nn

from mmovseg.engine.optim import build_optimizer, build_sgd
from mmovseg.errors import UserError


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.clip = nn.ModuleDict({"visual": nn.Linear(2, 2), "text": nn.Embedding(5, 2)})
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def settings(model, optimizer):
    """Return {parameter name: (lr, weight decay)}."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_rules_of_rate_and_decay():
    model = Model()
    multipliers = {"clip": 0.01, "clip.text": 0.1}
    optimizer = build_optimizer(model, base_lr=1.0, weight_decay=0.5, lr_multipliers=multipliers)
    assert settings(model, optimizer) == {
        "clip.visual.weight": (0.01, 0.5),
        "clip.visual.bias": (0.01, 0.5),  # biases decay by default
        "clip.text.weight": (0.1, 0.0),  # the longest prefix wins; an embedding does not decay
        "norm.weight": (1.0, 0.0),
        "norm.bias": (1.0, 0.0),
        "head.weight": (1.0, 0.5),
        "head.bias": (1.0, 0.5),
    }
    assert len(optimizer.param_groups) == 4


def test_options_turn_each_rule_round():
    model = Model()
    optimizer = build_optimizer(
        model, base_lr=1.0, weight_decay=0.5, decay_norms=True, decay_biases=False, decay_embeddings=True
    )
    decays = {name: decay for name, (_, decay) in settings(model, optimizer).items()}
    assert decays["norm.weight"] == decays["clip.text.weight"] == 0.5
    assert decays["head.bias"] == decays["clip.visual.bias"] == 0.0
    assert decays["norm.bias"] == 0.5


def test_parameter_with_frozen_rows_does_not_decay():
    model = Model()
    model.head.weight.frozen_rows = torch.tensor([True, False])
    assert settings(model, build_optimizer(model, base_lr=1.0, weight_decay=0.5))["head.weight"] == (1.0, 0.0)


def test_tied_parameter_is_in_one_group_once():
    model = Model()
    model.head.weight = model.clip["visual"].weight
    optimizer = build_optimizer(model, base_lr=1.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_prefix_that_matches_nothing_is_an_error():
    with pytest.raises(UserError, match="names 'clip.visula', which matches no parameter; did you mean 'clip.visual'"):
        build_optimizer(Model(), base_lr=1.0, lr_multipliers={"clip.visula": 0.1})
    with pytest.raises(UserError, match="names 'hea'"):  # not a prefix at a dot
        build_optimizer(Model(), base_lr=1.0, lr_multipliers={"hea": 0.1})


def test_prefix_of_frozen_parameters_is_no_error():
    build_optimizer(Model(), base_lr=1.0, lr_multipliers={"frozen": 0.1})


def test_nothing_to_train_is_an_error():
    with pytest.raises(UserError, match="nothing to train"):
        build_optimizer(Model().requires_grad_(False), base_lr=1.0)


class Layered(nn.Module):
    """An encoder of two blocks that knows its layers, and a head."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(2, 2)


class Encoder(nn.Module):
    num_layers = 2

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 4, 2))
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
        self.pyramid = nn.LayerNorm(2)

    def parameter_layers(self):
        layers = {"positions": 0, "pyramid.weight": 2, "pyramid.bias": 2}
        return layers | {f"blocks.{i}.{name}": i + 1 for i in range(2) for name in ("weight", "bias")}


def test_layer_decay_lowers_the_rate_towards_the_input():
    model = Layered()
    optimizer = build_optimizer(model, base_lr=1.0, layer_decay=0.5, lr_multipliers={"encoder": 0.1, "head": 3.0})
    rates = {name: rate for name, (rate, _) in settings(model, optimizer).items()}
    assert rates == pytest.approx(
        {
            "encoder.positions": 0.025,
            "encoder.blocks.0.weight": 0.05,
            "encoder.blocks.0.bias": 0.05,
            "encoder.blocks.1.weight": 0.1,
            "encoder.blocks.1.bias": 0.1,
            "encoder.pyramid.weight": 0.1,
            "encoder.pyramid.bias": 0.1,
            "head.weight": 3.0,
            "head.bias": 3.0,
        }
    )


def test_layer_decay_of_one_changes_nothing():
    model = Layered()
    plain = settings(model, build_optimizer(model, base_lr=1.0, weight_decay=0.5))
    assert settings(model, build_optimizer(model, base_lr=1.0, weight_decay=0.5, layer_decay=1.0)) == plain


def test_the_encoder_alone_can_be_the_model():
    encoder = Encoder()
    optimizer = build_optimizer(encoder, base_lr=1.0, layer_decay=0.5, layer_module="")
    assert settings(encoder, optimizer)["positions"][0] == 0.25


def test_layer_decay_needs_a_part_that_knows_its_layers():
    with pytest.raises(UserError, match="layer_module is 'encodr', which the model does not have; did you mean 'enc"):
        build_optimizer(Layered(), base_lr=1.0, layer_decay=0.5, layer_module="encodr")
    with pytest.raises(UserError, match=r"'head' \(Linear\) has no parameter_layers"):
        build_optimizer(Layered(), base_lr=1.0, layer_decay=0.5, layer_module="head")
    for decay in (0.0, 1.5):
        with pytest.raises(UserError, match=f"layer_decay is {decay} but must lie above 0"):
            build_optimizer(Layered(), base_lr=1.0, layer_decay=decay)


def test_vectors_and_patterns_can_be_exempt_from_decay():
    model = Layered()
    optimizer = build_optimizer(model, base_lr=1.0, weight_decay=0.5, decay_vectors=False, no_decay=["*.positions"])
    decays = {name: decay for name, (_, decay) in settings(model, optimizer).items()}
    assert {name for name, decay in decays.items() if decay} == {
        "encoder.blocks.0.weight",
        "encoder.blocks.1.weight",
        "head.weight",
    }
    kept = settings(model, build_optimizer(model, base_lr=1.0, weight_decay=0.5, decay_vectors=False))
    assert kept["encoder.positions"][1] == 0.5


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(UserError, match=r"no_decay has the pattern '\*\.position', which matches no parameter"):
        build_optimizer(Layered(), base_lr=1.0, no_decay=["*.position"])


def test_sgd_has_the_same_groups():
    model = Layered()
    optimizer = build_sgd(model, base_lr=0.5, momentum=0.8, weight_decay=0.1, layer_decay=0.5, decay_vectors=False)
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.8}
    adam = build_optimizer(model, base_lr=0.5, weight_decay=0.1, layer_decay=0.5, decay_vectors=False)
    assert settings(model, optimizer) == settings(model, adam)


def test_sgd_steps_as_the_formula_says():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = build_sgd(model, base_lr=0.5, momentum=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()  # gradient 1
        optimizer.step()
    assert model.weight.item() == pytest.approx(1.0 - 0.5 * 1.0 - 0.5 * 1.5)
