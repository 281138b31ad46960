"""Overrides of the command line, ``key.path=value``: what is misspelt or of the wrong type is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mmovseg.config.argument_types import argument_types, why_unfit
from mmovseg.config.instantiate import TARGET, failed_target, resolve_target, target_arguments
from mmovseg.config.loading import check_targets
from mmovseg.config.suggest import did_you_mean
from mmovseg.errors import UserError, one_line


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
    keys: dict[str, str] = {}
    for text in overrides:
        key, separator, value = text.partition("=")
        may_add, key = key.startswith("+"), key.removeprefix("+").strip()
        if not separator or not key:
            raise UserError(f"override '{text}' is not of the form key=value")
        _set(config, key, _parse_value(text, value), text, may_add)
        keys[key] = text
    check_targets(config, "command line")
    for key, text in keys.items():  # only now: `a=null a={b: 1}` replaces a section, which `a={b: 1}` would add to
        _check_argument(config, key, text)
    return config


def failed_override(error: BaseException, config: DictConfig, overrides: Iterable[str]) -> str | None:
    """Return the sentence to say when building a part failed on what the command line set of it, None if it did not.

    Args:
        error: what `instantiate` raised.
        config: what `apply_overrides` returned.
        overrides: the same as there.
    """
    target = failed_target(error)
    given = []
    for text in overrides if target is not None else ():
        key = text.partition("=")[0].removeprefix("+").strip()
        node = _call_around(config, key)
        if node is not None and resolve_target(node[TARGET]) is target:
            given.append(text)
    if not given:
        return None
    plural = "s" if len(given) > 1 else ""
    return f"override{plural} '{' '.join(given)}': {_name(target)} refuses: {one_line(error)}"


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
    """True when the call's annotation of the argument allows text beside the number, or cannot be read."""
    if isinstance(node, ListConfig) or TARGET not in node:
        return False
    kinds = argument_types(node[TARGET], part)
    return not kinds or str in kinds


def _check_argument(config: DictConfig, key: str, text: str) -> None:
    """Refuse what the annotation of a call's argument excludes, and interpolations that name nothing."""
    above, _, part = key.rpartition(".")
    try:
        node = OmegaConf.select(config, above) if above else config
        value = OmegaConf.select(config, key)
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        raise UserError(f"override '{text}': {str(error).splitlines()[0]}") from error
    if isinstance(node, DictConfig) and TARGET in node and part in node:
        reason = why_unfit(argument_types(node[TARGET], part), plain)
        if reason is not None:
            raise UserError(f"override '{text}': '{part}' of {_name(resolve_target(node[TARGET]))} {reason}")


def _call_around(config: DictConfig, key: str) -> DictConfig | None:
    """Return the innermost call that a key belongs to."""
    while "." in key:
        key = key.rpartition(".")[0]
        node = OmegaConf.select(config, key)
        if isinstance(node, DictConfig) and TARGET in node:
            return node
    return None


def _name(target: Any) -> str:
    return str(getattr(target, "__name__", target))
