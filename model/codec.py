"""Frozen dataclasses <-> JSON bytes, driven by the type annotations; defaults are left out.

Rules: unknown keys are ignored when reading (an older daemon can read a newer document); a missing required field or a
wrong shape raises ValueError naming the path. A class with `from_older(plain)` gets what older daemons wrote, to give it in
the shape of today. Converters are built once per class and cached.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from model.codec_compiled import Unusual, maker, whole, writer

T = TypeVar("T")


def encode(record: Any) -> bytes:
    """Compact JSON of a frozen dataclass; the same record always gives the same bytes."""
    try:
        text = writer(typing.cast(Any, type(record)))(record)
    except (Unusual, TypeError, ValueError, AttributeError):
        text = whole(to_plain(record))
    return text.encode()


def decode(cls: type[T], data: bytes | str) -> T:
    """The record of type `cls` that `data` (JSON) holds."""
    plain = json.loads(data)
    try:
        return typing.cast(T, maker(typing.cast(Any, cls))(plain))
    except Unusual:  # it says what is wrong, or knows how to read it
        return from_plain(cls, plain)


def to_plain(record: Any) -> Any:
    """`record` as dicts, lists and scalars, without the fields that have their default value."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        values = ((name, getattr(record, name), default, required) for name, default, required in _fields(type(record)))
        return {name: to_plain(value) for name, value, default, required in values if required or value != default}
    if isinstance(record, (tuple, list)):
        return [to_plain(item) for item in record]
    if isinstance(record, dict):
        return {key: to_plain(value) for key, value in record.items()}
    return record


def from_plain(cls: type[T], plain: Any) -> T:
    """The inverse of `to_plain`."""
    return typing.cast(T, _reader(typing.cast(Any, cls))(plain, cls.__name__))


def unknown_keys(kind: Any, plain: Any, path: str = "") -> list[str]:
    """The paths in `plain` that a record of type `kind` has no field for: for input that must not be misspelt."""
    if dataclasses.is_dataclass(kind) and isinstance(plain, dict):
        hints = typing.get_type_hints(kind)
        rows = [(hints.get(key), value, f"{path}.{key}" if path else str(key)) for key, value in plain.items()]
        return [found for hint, value, at in rows for found in ([at] if hint is None else unknown_keys(hint, value, at))]
    inner = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
    if isinstance(plain, list) and typing.get_origin(kind) is tuple and len(inner) == 1:
        return [found for at, item in enumerate(plain) for found in unknown_keys(inner[0], item, f"{path}[{at}]")]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [found for arg in inner if dataclasses.is_dataclass(arg) for found in unknown_keys(arg, plain, path)]
    return []


@cache
def _fields(cls: type) -> tuple[tuple[str, Any, bool], ...]:
    rows = []
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = field.default if field.default is not dataclasses.MISSING else None
        rows.append((field.name, default, required))
    return tuple(rows)


_Reader = Callable[[Any, str], Any]


@cache
def _reader(kind: Any) -> _Reader:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record_reader(kind)
    if origin is tuple:
        return _tuple_reader(typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return _union_reader(typing.get_args(kind))
    if origin is typing.Literal:
        return _literal_reader(typing.get_args(kind))
    return _scalar_reader(kind)


def _record_reader(cls: type) -> _Reader:
    hints = typing.get_type_hints(cls)
    readers = {name: _reader(hints[name]) for name, _, _ in _fields(cls)}
    needed = [name for name, _, required in _fields(cls) if required]
    from_older: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(cls, "from_older", None)

    def read(plain: Any, path: str) -> Any:
        if not isinstance(plain, dict):
            raise ValueError(f"{path}: expected an object, found {type(plain).__name__}")
        if from_older is not None:
            plain = from_older(plain)
        for name in needed:
            if name not in plain:
                raise ValueError(f"{path}.{name}: missing")
        return cls(**{n: readers[n](v, f"{path}.{n}") for n, v in plain.items() if n in readers})

    return read


def _tuple_reader(args: tuple[Any, ...]) -> _Reader:
    repeated = _reader(args[0]) if len(args) == 2 and args[1] is Ellipsis else None
    fixed = None if repeated else [_reader(arg) for arg in args]

    def read(plain: Any, path: str) -> Any:
        if not isinstance(plain, (list, tuple)):
            raise ValueError(f"{path}: expected a list, found {type(plain).__name__}")
        if repeated:
            return tuple(repeated(item, path) for item in plain)
        assert fixed is not None
        if len(plain) != len(fixed):
            raise ValueError(f"{path}: expected {len(fixed)} items, found {len(plain)}")
        return tuple(reader(item, path) for reader, item in zip(fixed, plain, strict=True))

    return read


def _union_reader(args: tuple[Any, ...]) -> _Reader:
    (inner,) = [arg for arg in args if arg is not type(None)]
    reader = _reader(inner)
    return lambda plain, path: None if plain is None else reader(plain, path)


def _literal_reader(args: tuple[Any, ...]) -> _Reader:
    def read(plain: Any, path: str) -> Any:
        if plain not in args:
            raise ValueError(f"{path}: expected one of {', '.join(map(str, args))}, found {plain!r}")
        return plain

    return read


def _scalar_reader(kind: Any) -> _Reader:
    def read(plain: Any, path: str) -> Any:
        if kind is float and type(plain) is int:
            return float(plain)
        if kind is not Any and type(plain) is not kind:
            raise ValueError(f"{path}: expected {kind.__name__}, found {type(plain).__name__}")
        return plain

    return read
