"""Writers and readers of records as straight-line code, made once per class: a document of hundreds of replicas is written four
times as fast as field by field. What they cannot do is left to the plain way in model/codec.py.

Rules: `writer` gives byte for byte what the plain way gives, or raises; `maker` gives the record or raises Unusual. Neither
answers differently from the plain way: tests/properties/test_codec_compiled.py compares them. Only records with slots and
without `__post_init__` are made this way.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from functools import cache
from json import encoder
from sys import intern
from typing import Any, Final

Writer = Callable[[Any], str]
Maker = Callable[[Any], Any]
TEXT: Final[Writer] = getattr(encoder, "c_encode_basestring", None) or encoder.encode_basestring
SHARED_MAX: Final = 24
"""Texts shorter than this are kept once: names, ids, states that stand in a hundred thousand records."""
_MISSING: Final = object()
_INTEGERS: Final = frozenset({int})


class Unusual(Exception):
    """Not what the annotations say, or something that is not compiled: ask the plain way."""


def whole(value: Any) -> Any:
    """JSON of something without a record in it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@cache
def writer(kind: Any) -> Writer:
    """The JSON text of a value annotated as `kind`. The writer raises whatever a value of another shape makes it raise."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record_writer(kind)
    if kind is str or (origin is typing.Literal and all(isinstance(arg, str) for arg in args)):
        return TEXT
    if kind is int:
        return _integer
    if origin is tuple:
        return _tuple_writer(args)
    if origin in (typing.Union, types.UnionType) and len(args) == 2 and args[1] is type(None):
        inner = writer(args[0])
        return lambda value: "null" if value is None else inner(value)
    if kind in (bool, float):
        return whole
    raise Unusual(kind)


def _integer(value: Any) -> str:
    if type(value) is not int:
        raise Unusual(value)
    return int.__repr__(value)


def _integers(value: Any) -> str:
    """Of hundreds at once."""
    if type(value) is not tuple or not _INTEGERS.issuperset(map(type, value)):
        raise Unusual(value)
    return f"[{','.join(map(repr, value))}]"


def _tuple_writer(args: tuple[Any, ...]) -> Writer:
    if args == (int, ...):
        return _integers
    if len(args) == 2 and args[1] is Ellipsis:
        one = writer(args[0])

        def write(value: Any) -> str:
            if type(value) is not tuple:
                raise Unusual(value)
            return f"[{','.join(map(one, value))}]"

        return write
    each = [writer(arg) for arg in args]

    def write_fixed(value: Any) -> str:
        if type(value) is not tuple or len(value) != len(each):
            raise Unusual(value)
        return f"[{','.join([one(item) for one, item in zip(each, value, strict=True)])}]"

    return write_fixed


def _record_writer(cls: type) -> Writer:
    """`def write(record)` that puts together the text of one record."""
    hints = typing.get_type_hints(cls)
    names: dict[str, Any] = {"cls": cls, "Unusual": Unusual}
    fields = dataclasses.fields(cls)
    lines = ["def write(record):", "    if type(record) is not cls: raise Unusual(record)"]
    if all(field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING for field in fields):
        names |= {f"w{at}": writer(hints[field.name]) for at, field in enumerate(fields)}
        texts = [f'"{field.name}":{{w{at}(record.{field.name})}}' for at, field in enumerate(fields)]
        lines.append(f"    return f'{{{{{','.join(texts)}}}}}'")
        return typing.cast(Writer, _compiled(lines, names, "write"))
    lines.append("    parts = []")
    for at, field in enumerate(fields):
        names[f"w{at}"] = writer(hints[field.name])
        put = f"parts.append('\"{field.name}\":' + w{at}(value))"
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if not required:
            names[f"d{at}"] = field.default if field.default is not dataclasses.MISSING else None
            put = f"if value != d{at}: {put}"
        lines += [f"    value = record.{field.name}", f"    {put}"]
    lines.append("    return '{' + ','.join(parts) + '}'")
    return typing.cast(Writer, _compiled(lines, names, "write"))


@cache
def maker(kind: Any) -> Maker:
    """The value annotated as `kind` from what json.loads gave. The maker raises Unusual for anything of another shape."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record_maker(kind)
    if origin is tuple:
        return _tuple_maker(args)
    if origin in (typing.Union, types.UnionType) and len(args) == 2 and args[1] is type(None):
        inner = maker(args[0])
        return lambda plain: None if plain is None else inner(plain)
    if origin is typing.Literal:
        return _literal_maker(args)
    if kind in (str, int, float, bool):
        return _scalar_maker(kind)
    raise Unusual(kind)


def _scalar_maker(kind: type) -> Maker:
    def make(plain: Any) -> Any:
        if type(plain) is not kind:
            raise Unusual(plain)
        return plain

    def make_text(plain: Any) -> Any:
        if type(plain) is not str:
            raise Unusual(plain)
        return intern(plain) if len(plain) < SHARED_MAX else plain

    return make_text if kind is str else make


def _literal_maker(args: tuple[Any, ...]) -> Maker:
    def make(plain: Any) -> Any:
        if plain not in args:
            raise Unusual(plain)
        return plain

    return make


def _make_integers(plain: Any) -> Any:
    if type(plain) is not list or not _INTEGERS.issuperset(map(type, plain)):
        raise Unusual(plain)
    return tuple(plain)


def _tuple_maker(args: tuple[Any, ...]) -> Maker:
    if args == (int, ...):
        return _make_integers
    if len(args) == 2 and args[1] is Ellipsis:
        one = maker(args[0])

        def make(plain: Any) -> Any:
            if type(plain) is not list:
                raise Unusual(plain)
            return tuple(map(one, plain))

        return make
    each = [maker(arg) for arg in args]

    def make_fixed(plain: Any) -> Any:
        if type(plain) is not list or len(plain) != len(each):
            raise Unusual(plain)
        return tuple([one(item) for one, item in zip(each, plain, strict=True)])

    return make_fixed


def _record_maker(cls: type) -> Maker:
    """`def make(plain)` that fills the slots of one record."""
    if "__slots__" not in vars(cls) or hasattr(cls, "__post_init__"):
        raise Unusual(cls)
    hints = typing.get_type_hints(cls)
    names: dict[str, Any] = {
        "cls": cls, "new": object.__new__, "Unusual": Unusual, "missing": _MISSING, "intern": intern, "short": SHARED_MAX,
    }  # fmt: skip
    lines = ["def make(plain):", "    if type(plain) is not dict: raise Unusual(plain)"]
    lines.append("    get, record = plain.get, new(cls)")
    for at, field in enumerate(dataclasses.fields(cls)):
        names[f"s{at}"] = vars(cls)[field.name].__set__
        absent = "raise Unusual(plain)"
        if field.default is not dataclasses.MISSING:
            names[f"d{at}"], absent = field.default, f"value = d{at}"
        elif field.default_factory is not dataclasses.MISSING:
            names[f"d{at}"], absent = field.default_factory, f"value = d{at}()"
        lines += [f"    value = get('{field.name}', missing)", f"    if value is missing: {absent}"]
        lines += [f"    {line}" for line in _value_lines(hints[field.name], at, names)]
        lines.append(f"    s{at}(record, value)")
    lines.append("    return record")
    return typing.cast(Maker, _compiled(lines, names, "make"))


def _value_lines(kind: Any, at: int, names: dict[str, Any]) -> list[str]:
    if kind is int:
        return ["elif type(value) is not int: raise Unusual(value)"]
    if kind is str:
        return ["elif type(value) is not str: raise Unusual(value)", "elif len(value) < short: value = intern(value)"]
    names[f"m{at}"] = maker(kind)
    return [f"else: value = m{at}(value)"]


def _compiled(lines: list[str], names: dict[str, Any], name: str) -> Any:
    """As dataclasses make their own methods; every name in it is that of a field of ours."""
    exec("\n".join(lines), names)  # noqa: S102
    return names[name]
