"""Build the objects that a config describes, and look into the callables that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig

TARGET = "_target_"


def resolve_target(target: Any) -> Callable[..., Any]:
    """Return the callable that a ``_target_`` names (a callable, a dotted path, or a config that builds one).

    Raises:
        ImportError: the dotted path names nothing.
        TypeError: the target is not callable.
    """
    target = instantiate(target)
    if isinstance(target, str):
        name, target = target, locate(target)
        if target is None:
            raise ImportError(f"the config names '{name}', which cannot be imported")
    if not callable(target):
        raise TypeError(f"the config names {target!r}, which is not callable")
    return target


def instantiate(config: Any) -> Any:
    """Build `config` recursively.

    Unlike detectron2's function of this name, calls inside plain dicts and lists are built too, and plain containers
    arrive as `dict` and `list`, so that no constructor ever sees an OmegaConf type.
    """
    if isinstance(config, list | tuple | ListConfig):
        return [instantiate(item) for item in config]
    if not isinstance(config, Mapping | DictConfig):
        return config
    built = {key: instantiate(value) for key, value in config.items() if key != TARGET}
    if TARGET not in config:
        return built
    return resolve_target(config[TARGET])(**built)


def target_arguments(target: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the named parameters of a target and whether it takes any name (``**kwargs``)."""
    try:
        parameters = inspect.signature(resolve_target(target)).parameters
    except ValueError:  # builtins without a signature
        return {}, True
    kinds = inspect.Parameter
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    }
    return named, any(parameter.kind is kinds.VAR_KEYWORD for parameter in parameters.values())
