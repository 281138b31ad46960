from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pytest

from mmovseg.config import apply_overrides, load_config
from mmovseg.config.argument_types import argument_types, why_unfit
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


def test_null_and_whole_numbers_pass_where_the_annotation_has_them():
    config = overridden("optimizer.lr_multipliers=null", "model.weights=null", "optimizer.base_lr=1", "model.noise=0")
    assert config.optimizer.lr_multipliers is None and config.model.weights is None
    assert config.optimizer.base_lr == 1
    config = overridden("optimizer.betas=null", "optimizer.betas=[0.5, 0.6]", "model.noise=${optimizer.base_lr}")
    assert list(config.optimizer.betas) == [0.5, 0.6] and config.model.noise == 0.05  # null made room, and no more


@pytest.mark.parametrize("annotation", [Any, "NotImportedHere", "T", "object"])
def test_annotations_that_say_nothing_exclude_nothing(annotation):
    def target(value):
        return value

    target.__annotations__["value"] = {"T": TypeVar("T"), "object": object}.get(annotation, annotation)
    assert argument_types(target, "value") == set()
    assert why_unfit(argument_types(target, "value"), None) is None


def test_a_default_of_none_and_literals_count_as_types():
    def target(*, size: int = None, kind: Literal["a", 3] | float = 3, name: Annotated[str, "x"] = ""):  # noqa: RUF013
        return size, kind, name

    assert argument_types(target, "size") == {int, type(None)}
    assert argument_types(target, "kind") == {str, int, float} and argument_types(target, "name") == {str}


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
        ("optimizer.base_lr=null", "'base_lr' of build_optimizer cannot be null"),
        ("optimizer.eps=small", "'eps' of build_optimizer must be a number, not 'small'"),
        ("optimizer.no_decay=null", "'no_decay' of build_optimizer cannot be null; an empty list is []"),
        ("optimizer.decay_norms=norms", "'decay_norms' of build_optimizer must be a truth value, not 'norms'"),
        ("dataloader.train.batch_size=null", "'batch_size' of ToyLoader cannot be null"),
        ("dataloader.train.batch_size=true", "'batch_size' of ToyLoader must be a number, not true"),
        ("dataloader.test.num_samples=2.5", "'num_samples' of toy_test_loader must be a whole number, not 2.5"),
        ("lr_multiplier.max_iter=${nope}", "Interpolation key 'nope' not found"),
        ("optimizer.betas=[1", "has a value that is not valid YAML"),
        ("train.amp.dtype=int8", "command line: train.amp.dtype is 'int8'"),
    ],
)
def test_mistakes_are_one_sentence(text, message):
    with pytest.raises(UserError) as caught:
        overridden(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
