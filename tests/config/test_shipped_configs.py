"""Every config that ships loads, saves and loads again to an equal one."""

from pathlib import Path

import pytest

from mmovseg.config import TrainCfg, config_hash, load_config, save_config

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "configs").rglob("*.py"), *(ROOT / "projects").glob("*/configs/**/*.py")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_config_survives_saving(file, tmp_path):
    config = load_config(file)
    if "model" in config and "train" in config:  # the others are parts, whose interpolations lead outside themselves
        save_config(config, tmp_path / "config.yaml")
        assert config_hash(load_config(tmp_path / "config.yaml")) == config_hash(config)
        assert config.train.output_dir != TrainCfg().output_dir, "two configs would write into one folder"


def test_shipped_configs_are_found():
    names = {str(file.relative_to(ROOT / "configs")) for file in FILES if file.is_relative_to(ROOT / "configs")}
    assert {"common/train.py", "common/optim.py", "common/schedule.py"} <= names
