"""The values of a Compose file with the places they came from.

Rules: scalars are plain Python values; mappings and lists are dict and list subclasses that remember the mark of every
child. Aliased parts are shared between parents, so nobody changes a tree in place: each pass builds a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from model.compose.problems import NOWHERE, Mark


class Map(dict[str, Any]):
    """A mapping; `marks[key]` is where the value of `key` stands."""

    __slots__ = ("mark", "marks")

    def __init__(self, items: Iterable[tuple[str, Any]] = (), mark: Mark = NOWHERE) -> None:
        super().__init__(items)
        self.mark = mark
        self.marks: dict[str, Mark] = {}

    def put(self, key: str, value: Any, mark: Mark) -> None:
        self[key] = value
        self.marks[key] = mark

    def at(self, key: str) -> Mark:
        return self.marks.get(key, self.mark)


class Seq(list[Any]):
    """A list; `marks[i]` is where item `i` stands."""

    __slots__ = ("mark", "marks")

    def __init__(self, items: Iterable[Any] = (), mark: Mark = NOWHERE) -> None:
        super().__init__(items)
        self.mark = mark
        self.marks: list[Mark] = []

    def put(self, value: Any, mark: Mark) -> None:
        self.append(value)
        self.marks.append(mark)

    def at(self, index: int) -> Mark:
        return self.marks[index] if index < len(self.marks) else self.mark


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under `!reset` (drop what an earlier file said) or `!override` (replace it whole)."""

    kind: Literal["reset", "override"]
    value: Any


def mark_of(parent: Any, key: Any) -> Mark:
    """The place of `parent[key]`, as well as it is known."""
    if isinstance(parent, (Map, Seq)):
        return parent.at(key)
    return NOWHERE


def items_of(value: dict[str, Any]) -> Iterable[tuple[str, Any, Mark]]:
    """(key, value, mark) of a mapping of either kind."""
    if isinstance(value, Map):
        return ((key, item, value.at(key)) for key, item in value.items())
    return ((key, item, NOWHERE) for key, item in value.items())


def copy_map(value: dict[str, Any]) -> Map:
    """A shallow copy that keeps the marks."""
    copy = Map(value.items(), value.mark if isinstance(value, Map) else NOWHERE)
    if isinstance(value, Map):
        copy.marks.update(value.marks)
    return copy


def plain(value: Any) -> Any:
    """`value` as ordinary dicts and lists, tags taken off."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if not _is_reset(item)}
    if isinstance(value, list):
        return [plain(item) for item in value if not _is_reset(item)]
    if isinstance(value, Tagged):
        return plain(value.value)
    return value


def untag(value: Any) -> Any:
    """`value` without tags (a reset value is gone), marks kept."""
    if isinstance(value, Tagged):
        return untag(value.value)
    if isinstance(value, dict):
        result = Map(mark=value.mark if isinstance(value, Map) else NOWHERE)
        for key, item, mark in items_of(value):
            if not _is_reset(item):
                result.put(key, untag(item), mark)
        return result
    if isinstance(value, list):
        seq = Seq(mark=value.mark if isinstance(value, Seq) else NOWHERE)
        for index, item in enumerate(value):
            if not _is_reset(item):
                seq.put(untag(item), mark_of(value, index))
        return seq
    return value


def _is_reset(value: Any) -> bool:
    return isinstance(value, Tagged) and value.kind == "reset"
