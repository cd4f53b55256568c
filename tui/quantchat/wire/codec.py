"""Build dataclasses from parsed JSON strictly: refuse wrong types and unknown fields."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar


class ProtocolError(ValueError):
    """A line is not a message of the protocol, or JSON does not fit its dataclass."""


_T = TypeVar("_T")

FORMERLY = "formerly"
"""Key in the metadata of a dataclass field; the value is an old name of the field, which saved
snapshots still use."""

LARGEST_INTEGER = 2**63 - 1
"""Largest integer of a field. A larger one is replaced by this: a server or a config may give any
number, but every JSON library must be able to read the snapshot. Lists of integers are not
checked."""


def from_json(cls: type[_T], body: Any, *, saved: bool = False) -> _T:
    """Build the dataclass `cls` (and those nested in it) from parsed JSON. Raises ProtocolError.

    `saved` says that `body` is from a file that another version of quantchat may have written. Then
    a `Literal` field accepts any string, and fields may have their old names.
    """
    if not isinstance(body, dict):
        raise ProtocolError(f"{cls.__name__}: not an object")
    hints = _hints(cls)
    if saved:
        body = _renamed(cls, body)
    values = {}
    for name, hint in hints.items():
        if name in body:
            values[name] = _value(f"{cls.__name__}.{name}", hint, body[name], saved)
    unknown = body.keys() - hints.keys()
    if unknown:
        raise ProtocolError(f"{cls.__name__}: unknown field {sorted(unknown)[0]!r}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ProtocolError(f"{cls.__name__}: {error}") from error


def typed(where: str, kind: type[_T], value: object) -> _T:
    """Return the JSON `value` if it is of type `kind`.

    Raises ProtocolError, whose message begins with `where`.
    """
    checked: _T = _value(where, kind, value, saved=False)
    return checked


def _renamed(cls: type[Any], body: dict[str, object]) -> dict[str, object]:
    """Return `body` with old names of the fields of `cls` replaced by the current names."""
    for field in dataclasses.fields(cls):
        former = field.metadata.get(FORMERLY)
        if former in body and field.name not in body:
            body = {**body, field.name: body[former]}
            del body[former]
    return body


_HINTS: dict[type[Any], dict[str, object]] = {}


def _hints(cls: type[Any]) -> dict[str, object]:
    """Return the type of each field of the dataclass `cls`; its class variables are left out."""
    if cls not in _HINTS:
        found = typing.get_type_hints(cls)
        _HINTS[cls] = {field.name: found[field.name] for field in dataclasses.fields(cls)}
    return _HINTS[cls]


def _value(where: str, hint: Any, value: Any, saved: bool) -> Any:
    """Check `value` against the type `hint`, and build nested dataclasses.

    Only the kinds of types that the messages use are supported. For `Any` and `object` any JSON
    value is returned unchanged.
    """
    if hint is Any or hint is object:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (a for a in arguments if a is not type(None))
        return _value(where, hint, value, saved)
    if origin is typing.Literal and type(value) is str and (saved or value in arguments):
        return value
    if origin is list and isinstance(value, list):
        (item,) = arguments
        if item in (int, str) and all(type(v) is item for v in value):
            return value  # the common case, and the one that must be fast: batches of tokens
        return [_value(where, item, v, saved) for v in value]
    if origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        return tuple(_value(where, a, v, saved) for a, v in zip(arguments, value, strict=True))
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _value(where, arguments[1], v, saved) for key, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, saved=saved)
    if hint is int and type(value) is int:
        return max(-LARGEST_INTEGER, min(value, LARGEST_INTEGER))
    if hint is float and type(value) is int:
        return float(max(-LARGEST_INTEGER, min(value, LARGEST_INTEGER)))
    if isinstance(hint, type) and type(value) is hint:
        return value
    if origin is typing.Literal:
        raise ProtocolError(f"{where}: {str(value)[:80]!r} is not an allowed value")
    raise ProtocolError(
        f"{where}: {str(value)[:80]!r} is not of type {getattr(hint, '__name__', hint)}"
    )
