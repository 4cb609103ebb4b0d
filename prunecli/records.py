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
    """
    found: Record = _made(kind, value)
    return found


def _made(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {item.name for item in fields(kind)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ValueError(f"{kind.__name__} has no {unknown[0]}")
        return kind(**{name: _made(hints[name], item) for name, item in value.items()})
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inside,) = (item for item in inner if item is not type(None))
        return _made(inside, value)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"must be one of {', '.join(map(str, inner))}, got {value}")
        return value
    if origin is tuple:
        if inner[1:] == (Ellipsis,):
            return tuple(_made(inner[0], item) for item in value)
        return tuple(_made(part, item) for part, item in zip(inner, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {_made(inner[0], key): _made(inner[1], item) for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, (Enum, Path)):
        return kind(value)
    return value
