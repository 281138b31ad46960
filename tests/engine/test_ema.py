import pytest
import torch
from torch import nn

from mmovseg.engine.ema import EmaWeights
from mmovseg.errors import UserError


def test_average_follows_the_documented_recurrence():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = EmaWeights(model, decay=0.15)
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 5.0]):
        model.weight.data.fill_(value)
        ema.update()
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert ema.averages["weight"].item() == pytest.approx(expected)


def test_applied_swaps_and_restores_even_after_an_error():
    model = nn.Linear(1, 1, bias=False)
    ema = EmaWeights(model, decay=0.9)
    average = model.weight.item()
    model.weight.data.fill_(7.0)
    with pytest.raises(RuntimeError), ema.applied():
        assert model.weight.item() == average
        raise RuntimeError
    assert model.weight.item() == 7.0


def test_frozen_parameters_are_left_out_and_foreign_state_is_refused():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False))
    ema = EmaWeights(model, decay=0.9)
    assert set(ema.averages) == {"0.weight", "0.bias"}
    with pytest.raises(UserError, match="of other parameters than the model trains, for example '0.bias'"):
        ema.load_state_dict({"num_updates": 1, "averages": {"0.weight": torch.ones(1, 1)}})
