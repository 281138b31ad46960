"""Overrides of the command line, ``key.path=value``: what is misspelt or of the wrong type is refused."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mmovseg.config.instantiate import TARGET, resolve_target, target_arguments
from mmovseg.config.loading import check_targets
from mmovseg.config.suggest import did_you_mean
from mmovseg.errors import UserError


def apply_overrides(config: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """Change `config` in place.

    Args:
        config: what `load_config` returned.
        overrides: ``"a.b=value"`` with a YAML value (``1e-3``, ``[1, 2]``, ``null``, ``"text"``). A key must exist,
            be an argument of the call it belongs to, or a field of `TrainCfg`. ``"+a.b=value"`` adds to a plain dict.

    Returns:
        `config`.

    Raises:
        UserError: no ``=``, unknown key (the nearest one is named), or a value of the wrong type.
    """
    for text in overrides:
        key, separator, value = text.partition("=")
        may_add, key = key.startswith("+"), key.removeprefix("+").strip()
        if not separator or not key:
            raise UserError(f"override '{text}' is not of the form key=value")
        _set(config, key, _parse_value(text, value), text, may_add)
    check_targets(config, "command line")
    return config


def _parse_value(text: str, value: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]), resolve=False)["value"]  # type: ignore[index, call-overload]
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"override '{text}' has a value that is not valid YAML") from error


def _set(config: DictConfig, key: str, value: Any, text: str, may_add: bool) -> None:
    parts = key.split(".")
    node: Any = config
    for depth, part in enumerate(parts):
        where = ".".join(parts[: depth + 1])
        last = depth == len(parts) - 1
        if isinstance(node, ListConfig):
            _check_index(node, part, where, text)
        elif isinstance(node, DictConfig):
            _check_key(node, part, where, text, may_add and last, last)
        else:
            raise UserError(f"override '{text}': '{'.'.join(parts[:depth])}' is {node!r} and has no keys")
        if not last:
            node = node[int(part) if isinstance(node, ListConfig) else part]
    _check_type(node, parts[-1], value, text)
    try:
        OmegaConf.update(config, key, value, merge=True, force_add=may_add)
    except OmegaConfBaseException as error:
        raise UserError(f"override '{text}': {str(error).splitlines()[0]}") from error


def _check_index(node: ListConfig, part: str, where: str, text: str) -> None:
    if not part.isdigit() or int(part) >= len(node):
        raise UserError(f"override '{text}': '{where}' needs a list index below {len(node)}")


def _check_key(node: DictConfig, part: str, where: str, text: str, may_add: bool, last: bool) -> None:
    if part in node:
        return
    known = [str(key) for key in node if key != TARGET]
    if TARGET in node:
        named, takes_any = target_arguments(node[TARGET])
        if last and (part in named or takes_any):
            return
        known += list(named)
    elif may_add and OmegaConf.get_type(node) is dict:
        return
    hint = did_you_mean(part, known)
    raise UserError(f"override '{text}': unknown key '{where}'{hint or '; known: ' + ', '.join(sorted(set(known)))}")


def _check_type(node: DictConfig | ListConfig, part: str, value: Any, text: str) -> None:
    """Refuse text for a number and a plain value for a whole section; typed sections check themselves."""
    if isinstance(node, DictConfig) and part not in node:
        return
    old_node: Any = node._get_node(int(part)) if isinstance(node, ListConfig) else node._get_node(part)
    if old_node is None or old_node._is_interpolation() or old_node._is_none() or old_node._is_missing():
        return
    old: Any = node[int(part)] if isinstance(node, ListConfig) else node[part]
    if OmegaConf.is_config(old):
        wanted = dict if isinstance(old, DictConfig) else list
        interpolation = isinstance(value, str) and value.startswith("${")
        if value is not None and not interpolation and not isinstance(value, wanted):
            kind = "keys" if wanted is dict else "items"
            raise UserError(f"override '{text}': '{part}' is a section with {kind}, so {value!r} cannot replace it")
        return
    if isinstance(old, bool | int | float) and isinstance(value, str) and not value.startswith("${"):
        if not _accepts_text(node, part):
            raise UserError(f"override '{text}': '{part}' is {old!r}, so its new value must be a number, not '{value}'")


def _accepts_text(node: DictConfig | ListConfig, part: str) -> bool:
    """True when the call's annotation of the argument names `str` or a literal beside the number."""
    if isinstance(node, ListConfig) or TARGET not in node:
        return False
    function = resolve_target(node[TARGET])
    try:
        hints = typing.get_type_hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    except Exception:  # annotations that only a type checker can resolve
        return True
    annotation = hints.get(part)
    return annotation is None or annotation is Any or "str" in str(annotation) or "Literal" in str(annotation)
