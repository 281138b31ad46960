from pathlib import Path

import pytest

from mmovseg.config import apply_overrides, load_config
from mmovseg.errors import UserError

TOY = Path(__file__).parents[1] / "engine" / "toy_config.py"


def overridden(*texts):
    return apply_overrides(load_config(TOY), texts)


def test_values_are_yaml_and_keep_their_type():
    config = overridden(
        "train.max_iter=12",
        "optimizer.base_lr=1e-3",
        "train.init_checkpoint=a=b.safetensors",
        "optimizer.betas=[0.9, 0.99]",
        "train.ema.enabled=true",
    )
    assert config.train.max_iter == 12
    assert config.optimizer.base_lr == 1e-3
    assert config.train.init_checkpoint == "a=b.safetensors"
    assert list(config.optimizer.betas) == [0.9, 0.99]
    assert config.train.ema.enabled is True
    assert config.lr_multiplier.max_iter == 12  # by interpolation


def test_argument_of_a_target_that_the_config_does_not_set_is_accepted():
    assert overridden("model.noise=0.5").model.noise == 0.5


def test_plus_adds_to_a_plain_dict_and_only_there():
    assert overridden("+optimizer.lr_multipliers.norm=2.0").optimizer.lr_multipliers == {"head": 0.5, "norm": 2.0}
    with pytest.raises(UserError, match="unknown key 'optimizer.lr_multipliers.norm'"):
        overridden("optimizer.lr_multipliers.norm=2.0")
    with pytest.raises(UserError, match="unknown key 'train.extra'"):
        overridden("+train.extra=1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.max_itr=5", "unknown key 'train.max_itr'; did you mean 'max_iter'"),
        ("trian.max_iter=5", "unknown key 'trian'; did you mean 'train'"),
        ("model.widht=5", "unknown key 'model.widht'; did you mean 'width'"),
        ("dataloader.tset.num_samples=5", "unknown key 'dataloader.tset'; did you mean 'test'"),
        ("optimizer.qqq=5", "unknown key 'optimizer.qqq'; known: "),
        ("model.width.x=5", "'model.width' is 4 and has no keys"),
        ("train.max_iter", "is not of the form key=value"),
        ("train.max_iter=many", "'max_iter' is 6, so its new value must be a number"),
        ("train.max_iter=1.5", "'1.5' of type 'float' could not be converted to Integer"),
        ("optimizer.base_lr=fast", "'base_lr' is 0.05, so its new value must be a number, not 'fast'"),
        ("optimizer=5", "'optimizer' is a section with keys, so 5 cannot replace it"),
        ("optimizer.betas=[1", "has a value that is not valid YAML"),
        ("train.amp.dtype=int8", "command line: train.amp.dtype is 'int8'"),
    ],
)
def test_mistakes_are_one_sentence(text, message):
    with pytest.raises(UserError) as caught:
        overridden(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
