"""What the annotations of a call's target say of a value from the command line."""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Sequence, Set
from typing import Any

from mmovseg.config.instantiate import resolve_target, target_arguments

_NUMBERS = {bool, int, float}


def argument_types(target: Any, name: str) -> set[Any]:
    """Return the types, None's included, that an argument may have by its annotation; empty = anything.

    The values of a `Literal` count by their types.
    """
    function = resolve_target(target)
    try:
        hints = typing.get_type_hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    except Exception:  # annotations that only a type checker can resolve
        return set()
    found = _members(hints[name]) if name in hints else set()
    if found & {Any, object} or any(isinstance(kind, typing.TypeVar) for kind in found):
        return set()
    parameter = target_arguments(target)[0].get(name)
    return found | {type(None)} if found and parameter is not None and parameter.default is None else found


def why_unfit(kinds: Collection[Any], value: Any) -> str | None:
    """Return what speaks against a plain value for an argument of these types, None if nothing is known to.

    Args:
        kinds: from `argument_types`.
        value: as YAML gives it.
    """
    if not kinds:
        return None
    if value is None:
        empty = "; an empty list is []" if any(_is_sequence(kind) for kind in kinds) else ""
        return None if type(None) in kinds else f"cannot be null{empty}"
    if not set(kinds) & _NUMBERS or str in kinds:
        return None
    if isinstance(value, bool):
        return None if bool in kinds else f"must be a number, not {str(value).lower()}"
    if isinstance(value, float) and int in kinds and float not in kinds:
        return f"must be a whole number, not {value}"
    if isinstance(value, str) and not set(kinds) - _NUMBERS - {type(None)}:
        return f"must be a {'truth value' if not set(kinds) & {int, float} else 'number'}, not '{value}'"
    return None


def _members(annotation: Any) -> set[Any]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(_members, typing.get_args(annotation)))
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(annotation)}
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    return {origin or annotation}


def _is_sequence(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Sequence | Set) and kind is not str
