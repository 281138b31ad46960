"""Build the objects that a config describes, and look into the callables that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig

TARGET = "_target_"
_FAILED = "_mmovseg_failed_target"


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
    arrive as `dict` and `list`, so that no constructor ever sees an OmegaConf type. A `TypeError` or `ValueError` that
    a call raises remembers its target: see `failed_target`.
    """
    if isinstance(config, list | tuple | ListConfig):
        return [instantiate(item) for item in config]
    if not isinstance(config, Mapping | DictConfig):
        return config
    built = {key: instantiate(value) for key, value in config.items() if key != TARGET}
    if TARGET not in config:
        return built
    target = resolve_target(config[TARGET])
    try:
        return target(**built)
    except (TypeError, ValueError) as error:
        if failed_target(error) is None:  # the innermost call is the one that failed
            setattr(error, _FAILED, target)
        raise


def failed_target(error: BaseException) -> Callable[..., Any] | None:
    """Return the target of the call in a config that raised this error, None for errors from elsewhere."""
    target: Callable[..., Any] | None = getattr(error, _FAILED, None)
    return target


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
