from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from mmovseg.config import LazyCall as L
from mmovseg.config import (
    TrainCfg,
    config_hash,
    config_to_dict,
    config_to_yaml,
    find_config,
    get_config,
    instantiate,
    load_config,
    save_config,
)
from mmovseg.errors import UserError

TOY = Path(__file__).parents[1] / "engine" / "toy_config.py"
TRAIN = "from mmovseg.config import TrainCfg\nfrom omegaconf import OmegaConf\ntrain = OmegaConf.structured(TrainCfg)\n"


def pair(*, a=None, b=None):
    return (a, b)


def write(folder, text, name="config.py"):
    path = folder / name
    path.write_text(text)
    return path


def test_saved_config_reloads_to_an_equal_one(tmp_path):
    config = load_config(TOY)
    save_config(config, tmp_path / "config.yaml")
    again = load_config(tmp_path / "config.yaml")
    assert config_to_dict(again) == config_to_dict(config)
    assert config_hash(again) == config_hash(config)
    assert OmegaConf.get_type(again.train) is TrainCfg
    assert again.lr_multiplier.max_iter == 6


def test_names_below_configs_are_found_with_and_without_prefix():
    assert find_config("common/train.py") == find_config("configs/common/train.py")
    assert get_config("common/train.py").train.log_period == TrainCfg().log_period


def test_editing_a_loaded_config_does_not_leak_into_the_next_load():
    get_config("common/train.py").train.max_iter = 7
    assert get_config("common/train.py").train.max_iter == TrainCfg().max_iter


def test_missing_file_names_the_nearest_one():
    with pytest.raises(UserError, match=r"'common/trian\.py' does not exist; did you mean 'common/train\.py'"):
        load_config("common/trian.py")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train.max_itr = 5", r"unknown key 'max_itr' of TrainCfg; did you mean 'max_iter'"),
        ("train.amp.enable = True", r"unknown key 'amp.enable' of AmpCfg; did you mean 'enabled'"),
        ("train.max_iter = 'many'", r"'max_iter': Value 'many'"),
        ("train.amp.dtype = 'float8'", r"train.amp.dtype is 'float8' but must be one of float16, bfloat16"),
        ("train.eval_period = -2", r"train.eval_period is -2 but must be at least -1"),
        ("train.ema.decay = 1.0", r"train.ema.decay is 1.0 but must lie in"),
    ],
)
def test_wrong_train_values_in_a_file_are_refused(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, TRAIN + line + "\n"))


def test_wrong_key_in_a_plain_train_dict_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown key 'train.max_itr' of TrainCfg; did you mean 'max_iter'"):
        load_config(write(tmp_path, "train = dict(max_itr=5)\n"))


def test_misspelt_argument_of_a_call_is_refused_at_load(tmp_path):
    imports = "from mmovseg.config import LazyCall as L\nfrom torch.nn import Linear\n"
    text = imports + "model = dict(part=L(Linear)(in_featres=3))\n"
    with pytest.raises(
        UserError, match="unknown key 'model.part.in_featres': Linear takes no .*did you mean 'in_features'"
    ):
        load_config(write(tmp_path, text))


def test_broken_python_and_broken_yaml_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="is not valid Python"):
        load_config(write(tmp_path, "train = (\n"))
    with pytest.raises(UserError, match="is not valid YAML"):
        load_config(write(tmp_path, "a: [1\n", "config.yaml"))
    with pytest.raises(UserError, match=r"must end in \.py or \.yaml"):
        load_config(write(tmp_path, "", "config.txt"))


def test_yaml_executes_nothing(tmp_path):
    flag = tmp_path / "executed"
    text = f"train: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{flag}']]\n"
    with pytest.raises(UserError, match="is not valid YAML"):
        load_config(write(tmp_path, text, "config.yaml"))
    assert not flag.exists()


def test_hash_ignores_the_output_folder_and_nothing_else():
    first, second, third = load_config(TOY), load_config(TOY), load_config(TOY)
    second.train.output_dir = "elsewhere"
    third.train.seed = 1
    assert config_hash(first) == config_hash(second)
    assert config_hash(first) != config_hash(third)


def test_objects_that_yaml_cannot_say_are_refused():
    config = DictConfig({"model": {"thing": object()}}, flags={"allow_objects": True})
    with pytest.raises(UserError, match="cannot be saved as YAML"):
        config_to_yaml(config)


def test_instantiate_builds_inside_plain_containers_and_gives_plain_types():
    config = DictConfig({"parts": [L(pair)(a=L(pair)(a=1))], "options": {"b": L(pair)(b=[1, 2])}})
    built = instantiate(config)
    assert built == {"parts": [((1, None), None)], "options": {"b": (None, [1, 2])}}
    assert type(built["options"]["b"][1]) is list
    assert type(built["options"]) is dict


def test_a_base_is_not_shared_by_those_who_take_it():
    first, second = get_config("miniearth/mmovseg_xs.py"), get_config("miniearth/mmovseg_xs.py")
    first.train.max_iter, first.dataloader.train.batch_size, first.model.modality = 7, 3, "sar"
    assert (second.train.max_iter, second.dataloader.train.batch_size, second.model.modality) == (300, 16, "both")
    assert first.lr_multiplier.max_iter == 7 and second.lr_multiplier.max_iter == 300
    assert get_config("miniearth/mmovseg_xs.py") == second == load_config("miniearth/mmovseg_xs.py")
