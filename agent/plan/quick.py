"""`dataclasses.replace` for records with many fields that are replaced often: the same, in half the time.

Rules: pure; for dataclasses whose fields are all arguments. Half of the CPU of a start was spent in the library's one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import replace
else:
    T = TypeVar("T")

    def replace(record: T, /, **changes: Any) -> T:
        """The record with other values in these fields."""
        values_of, places = _plan(type(record))
        values = list(values_of(record))
        for name, value in changes.items():
            values[places[name]] = value
        return type(record)(*values)


@cache
def _plan(cls: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], dict[str, int]]:
    names = [field.name for field in fields(cls)]
    return attrgetter(*names), {name: place for place, name in enumerate(names)}


__all__ = ["replace"]
