"""Frozen records to JSON and back.

Stage: below all that keeps records in files. In: a record, or what JSON made of it. Out: the
other. Knows nothing about any record in particular.
"""

import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What comes of making records of a file that is not what was written."""

NUMBERS = {float: (float, int)}
"""What is read as which type: 1 is a float too."""


def to_plain(record: Any) -> Any:
    """A record as dictionaries, lists, numbers and texts."""
    return _plain(asdict(record))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: type[Record], value: Any) -> Record:
    """The record of that type. Fields that are missing keep their defaults.

    Raises:
        TypeError, ValueError, KeyError: the value is not of that form.
        RecursionError: it is nested without end.
    """
    found: Record = _made(kind, value)
    return found


def _made(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        value = _of(Mapping, value)
        hints = get_type_hints(kind)
        known = {item.name for item in fields(kind)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ValueError(f"{kind.__name__} has no {unknown[0]}")
        return kind(**{name: _made(hints[name], item) for name, item in value.items()})
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (inside,) = (item for item in inner if item is not type(None))
        return _made(inside, value)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"must be one of {', '.join(map(str, inner))}, got {value}")
        return value
    if origin is tuple:
        value = _of((list, tuple), value)
        if inner[1:] == (Ellipsis,):
            return tuple(_made(inner[0], item) for item in value)
        return tuple(_made(part, item) for part, item in zip(inner, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        pairs = _of(Mapping, value).items()
        return {_made(inner[0], key): _made(inner[1], item) for key, item in pairs}
    if isinstance(kind, type) and issubclass(kind, (Enum, Path)):
        return kind(value)
    return _of(NUMBERS.get(kind, kind), value) if kind in (bool, int, float, str) else value


def _of(kind: Any, value: Any) -> Any:
    """The value, if it is of that type. In Python `True` is a number, in a record it is none.

    Raises:
        TypeError: it is not.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(item.__name__ for item in kinds)
        raise TypeError(f"{wanted} is needed, got {str(value)[:40]!r}")
    return value
