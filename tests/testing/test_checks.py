import pytest
import torch
from torch import nn

from mmovseg.testing.checks import assert_same_state, random_inputs, scores_for, tiny_vocabulary


def state(**changes):
    return {"a": torch.arange(4.0), "b": torch.tensor([1.0, torch.nan])} | changes


def test_equal_states_pass_also_as_modules_and_with_nan():
    assert_same_state(state(), state())
    layer = nn.Linear(2, 3)
    assert_same_state(layer, layer.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": torch.zeros(1)}, r"only in second: \['c'\]"),
        ({"a": torch.zeros(5)}, "a: shape"),
        ({"a": torch.arange(4)}, "a: dtype"),
        ({"a": torch.tensor([0.0, 1.0, 2.0, 3.5])}, "a differs by 0.5"),
        ({"b": torch.tensor([torch.nan, 1.0])}, "b differs by nan"),
    ],
)
def test_differences_are_named(changes, message):
    with pytest.raises(AssertionError, match=message):
        assert_same_state(state(), state(**changes))


def test_tolerance_is_absolute():
    assert_same_state(state(), state(a=torch.arange(4.0) + 0.01), atol=0.02)


@pytest.mark.parametrize(("modality", "keys"), [("both", {"image", "sar"}), ("optical", {"image"}), ("sar", {"sar"})])
def test_random_inputs_repeat_and_leave_out_the_absent_modality(modality, keys):
    first, second = (random_inputs(tiny_vocabulary(), ((8, 9),), modality=modality) for _ in range(2))
    assert {"image", "sar"} & set(first[0]) == keys
    for key in keys | {"sem_seg"}:
        assert torch.equal(first[0][key], second[0][key])
        assert first[0][key].shape[-2:] == (8, 9)


def test_scores_for_has_the_labels_as_argmax():
    labels = torch.tensor([[0, 2], [1, 1]])
    assert torch.equal(scores_for(labels, 3)["sem_seg"].argmax(0), labels)
