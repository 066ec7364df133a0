"""Values of Go templates: how they are printed, and the functions on them.

Rules: pure. What a function cannot take is a TypeError, ValueError, KeyError or IndexError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Nil:
    """A list or a map that is not there; `text` is what Go prints."""

    text: str

    def __bool__(self) -> bool:
        return False


def printed(value: Any) -> str:
    """As Go's `%v`."""
    if value is None:
        return "<nil>"
    if isinstance(value, Nil):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{printed(value[key])}' for key in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(printed, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=lambda _: None)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = None if isinstance(value, Nil) else value.get(key) if isinstance(value, Mapping) else value[key]
    return value


def _printf(text: str, *values: Any) -> str:
    left = list(values)

    def one(found: re.Match[str]) -> str:
        value = left.pop(0)
        if found[2] == "q":
            return json.dumps(printed(value), ensure_ascii=False)
        return f"%{found[1]}s" % printed(value)

    return re.sub(r"%(-?\d*(?:\.\d+)?)([vsdq])", one, text)


def _all(*values: Any) -> Any:
    return next((value for value in values if not value), values[-1])


def _any(*values: Any) -> Any:
    return next((value for value in values if value), values[-1])


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "json": as_json,
    "join": lambda items, between: between.join(map(printed, items or ())),
    "split": lambda text, between: text.split(between),
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "truncate": lambda text, size: str(text)[:size],
    "print": lambda *values: "".join(map(printed, values)),
    "println": lambda *values: " ".join(map(printed, values)) + "\n",
    "printf": _printf,
    "len": lambda value: len(value or ()),
    "index": _index,
    "eq": lambda value, *others: any(value == other for other in others),
    "ne": lambda value, other: value != other,
    "lt": lambda value, other: value < other,
    "le": lambda value, other: value <= other,
    "gt": lambda value, other: value > other,
    "ge": lambda value, other: value >= other,
    "and": _all,
    "or": _any,
    "not": lambda value: not value,
}
