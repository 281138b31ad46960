import pytest
import torch
from torch import nn

from mmovseg.engine.optim import build_optimizer
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
