"""Config files: LazyConfig with typed `train`, checked arguments and strict overrides."""

from detectron2.config import LazyCall

from mmovseg.config.instantiate import instantiate
from mmovseg.config.loading import (
    check_targets,
    config_hash,
    config_to_dict,
    config_to_yaml,
    find_config,
    get_config,
    load_config,
    save_config,
)
from mmovseg.config.overrides import apply_overrides
from mmovseg.config.schema import TrainCfg

__all__ = [
    "LazyCall",
    "TrainCfg",
    "apply_overrides",
    "check_targets",
    "config_hash",
    "config_to_dict",
    "config_to_yaml",
    "find_config",
    "get_config",
    "instantiate",
    "load_config",
    "save_config",
]
