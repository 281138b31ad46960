"""Find, read, check, save and compare config files."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import mmovseg
from mmovseg.config.instantiate import TARGET, resolve_target, target_arguments
from mmovseg.config.schema import TrainCfg, check_train_cfg
from mmovseg.config.suggest import did_you_mean
from mmovseg.errors import UserError


def config_folders() -> list[Path]:
    """Return the folders that hold the shipped configs: of a checkout, or inside an installed wheel."""
    package = Path(mmovseg.__file__).resolve().parent
    candidates = (package.parent / "configs", package / "configs")
    return [folder for folder in candidates if (folder / "common").is_dir()]


def find_config(name: str | Path) -> Path:
    """Return the file that `name` means: a path, or one below the shipped ``configs/`` (with or without that prefix).

    Raises:
        UserError: there is no such file, or it is neither ``.py`` nor ``.yaml``.
    """
    text = os.fspath(name)
    path = Path(text)
    if path.suffix not in (".py", ".yaml", ".yml"):
        raise UserError(f"config file '{text}' must end in .py or .yaml")
    if path.is_file():
        return path.resolve()
    if not path.is_absolute():
        below = Path(*path.parts[1:]) if path.parts[0] == "configs" else path
        folders = config_folders()
        for found in [folder / below for folder in folders] + [folder.parent / path for folder in folders]:
            if found.is_file():
                return found.resolve()
    known = sorted(str(file.relative_to(folder)) for folder in config_folders() for file in folder.rglob("*.py"))
    hint = did_you_mean(text.removeprefix("configs/"), known)
    raise UserError(f"config file '{text}' does not exist{hint}")


def get_config(name: str) -> DictConfig:
    """Return a shipped config by its path below ``configs/``, for use as a base in another config file.

    A process reads each shipped file once: bases have bases, and one chain would read some of them many times over.
    """
    file = find_config(name)
    if any(file.is_relative_to(folder) for folder in config_folders()):
        return copy.deepcopy(_load_once(file))
    return load_config(file)


@lru_cache(maxsize=256)
def _load_once(file: Path) -> DictConfig:
    return load_config(file)


def load_config(path: str | Path) -> DictConfig:
    """Read a config file and check it.

    Args:
        path: a ``.py`` LazyConfig, a saved ``.yaml``, or a name below the shipped ``configs/``.

    Returns:
        The config; `train`, if there is one, is typed by `TrainCfg`.

    Raises:
        UserError: the file is missing or broken, `train` holds an unknown key or a wrong type, or a call has an
            argument that its target does not take.
    """
    file = find_config(path)
    try:
        config = _read_yaml(file) if file.suffix != ".py" else LazyConfig.load(str(file))
    except SyntaxError as error:
        raise UserError(f"config file '{file}' is not valid Python: {error.__cause__ or error}") from error
    except OmegaConfBaseException as error:
        raise _as_user_error(error, str(file)) from error
    except UserError:
        raise
    except Exception as error:  # a .py config is a program, which can fail in any way
        place = "".join(f" (line {frame.lineno})" for frame in traceback.extract_tb(error.__traceback__)[-1:])
        reason = f"{type(error).__name__}: {error}{place}"
        raise UserError(f"config file '{file}' cannot be read: {reason}") from error
    if "train" in config:
        train = config["train"]
        if OmegaConf.get_type(train) is not TrainCfg:
            config["train"] = _typed_train(train, str(file))
    check_targets(config, str(file))
    return config


def _read_yaml(file: Path) -> DictConfig:
    # Not LazyConfig: that one reads YAML with a loader that executes what the file says.
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config file '{file}' is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"config file '{file}' must hold a mapping, not {type(content).__name__}")
    return OmegaConf.create(content, flags={"allow_objects": True})


def _typed_train(train: Any, source: str) -> DictConfig:
    try:
        return OmegaConf.merge(OmegaConf.structured(TrainCfg), train)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise _as_user_error(error, source, prefix="train.") from error


def _as_user_error(error: OmegaConfBaseException, source: str, prefix: str = "") -> UserError:
    """Turn OmegaConf's several lines into one sentence, with the nearest key for a misspelt one."""
    sentence = str(error).splitlines()[0]
    key = str(error.full_key or error.key or "")
    known = [part for part in _field_names(error.object_type) if isinstance(part, str)]
    if known and key.split(".")[-1] not in known:
        hint = did_you_mean(key.split(".")[-1], known)
        return UserError(f"{source}: unknown key '{prefix}{key}' of {error.object_type.__name__}{hint}")  # type: ignore[union-attr]
    return UserError(f"{source}: '{prefix}{key}': {sentence}")


def _field_names(kind: object) -> list[str]:
    return list(getattr(kind, "__dataclass_fields__", {}))


def walk_calls(config: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yield (dotted path, node) of every call in `config`, outermost first; interpolations are not followed."""
    if not OmegaConf.is_config(config) or config._is_none() or config._is_missing() or config._is_interpolation():
        return
    if isinstance(config, DictConfig):
        if TARGET in config:
            yield path, config
        items: list[tuple[Any, Any]] = [(key, config._get_node(key)) for key in config]
    else:
        assert isinstance(config, ListConfig)
        items = [(index, config._get_node(index)) for index in range(len(config))]
    for key, value in items:
        yield from walk_calls(value, f"{path}.{key}" if path else str(key))


def check_targets(config: DictConfig, source: str) -> None:
    """Check every call's arguments against the signature of its target.

    Raises:
        UserError: a target cannot be imported or does not take an argument; names `source`, the key, the nearest one.
    """
    for path, node in walk_calls(config):
        try:
            named, takes_any = target_arguments(node[TARGET])
        except (ImportError, TypeError) as error:
            raise UserError(f"{source}: '{path}': {error}") from error
        for key in map(str, node):
            if key != TARGET and key not in named and not takes_any:
                where = f"{path}.{key}" if path else key
                name = getattr(resolve_target(node[TARGET]), "__name__", "its target")
                raise UserError(f"{source}: unknown key '{where}': {name} takes no '{key}'{did_you_mean(key, named)}")
    if "train" in config and OmegaConf.get_type(config["train"]) is TrainCfg:
        check_train_cfg(config["train"], source)


def config_to_dict(config: DictConfig) -> dict[str, Any]:
    """Return plain containers: interpolations resolved, every target as its dotted path."""
    config = copy.deepcopy(config)
    for _, node in walk_calls(config):
        if callable(node[TARGET]):
            node[TARGET] = _convert_target_to_string(node[TARGET])
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def config_to_yaml(config: DictConfig) -> str:
    """Return the resolved config as YAML.

    Raises:
        UserError: the config holds an object (a lambda, an array, ...) that plain YAML cannot express.
    """
    try:
        return yaml.safe_dump(
            config_to_dict(config), default_flow_style=None, allow_unicode=True, sort_keys=False, width=120
        )
    except yaml.YAMLError as error:
        value = error.args[-1] if error.args else error
        raise UserError(f"the config holds {value!r}, which cannot be saved as YAML; describe it by a call") from error


def save_config(config: DictConfig, path: str | Path) -> None:
    """Write the resolved config, such that `load_config` of the file gives an equal one. Atomic."""
    from mmovseg.checkpoint.save import atomic_write

    text = config_to_yaml(config)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def config_hash(config: DictConfig) -> str:
    """Return the sha256 of the resolved config without `train.output_dir`, so that moving a run keeps its hash."""
    plain = config_to_dict(config)
    plain.get("train", {}).pop("output_dir", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
