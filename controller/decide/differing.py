"""What differs between two states of thousands of documents: loops ask after each change of one of them.

Rules: the answer is the one that looking at everything gives; a table that knows what was changed in it gives it at the cost of
the change. To look at 5,000 documents, be it only at whether they are the same objects, takes a millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

T = TypeVar("T")
LOG_MAX: Final = 50_000


class Table(dict[str, T]):
    """Documents by name. Changed by `put` and `drop` only; of those that came from each other by `branch`, the newest."""

    __slots__ = ("at", "log", "names")

    def __init__(self, documents: Mapping[str, T] | None = None) -> None:
        super().__init__(documents or {})
        self.log: list[str] = []
        """Names in the order they were changed; shared with the tables this one came from."""
        self.at = 0
        """So much of `log` is in this one."""
        self.names = 0
        """Another number when there are other names."""

    def branch(self) -> Table[T]:
        """A copy to go on with."""
        new = Table(self)
        new.log, new.at, new.names = self.log, self.at, self.names
        return new

    def put(self, name: str, document: T) -> None:
        self.names += name not in self
        self[name] = document
        self._changed(name)

    def drop(self, name: str) -> None:
        if name in self:
            del self[name]
            self.names += 1
            self._changed(name)

    def _changed(self, name: str) -> None:
        if self.at >= LOG_MAX:  # those before know nothing of it now: with them all is compared once
            self.log, self.at = [], 0
        self.log.append(name)
        self.at += 1


def others(before: Mapping[str, T], after: Mapping[str, T]) -> list[str]:
    """Names in `after` that are new, or whose document is another object."""
    names = _changed_between(before, after)
    found = after if names is None else names
    return [name for name in found if name in after and before.get(name) is not after[name]]


def missing(before: Mapping[str, T], after: Mapping[str, T]) -> list[str]:
    """Names in `before` only."""
    names = _changed_between(before, after)
    return [name for name in (before if names is None else names) if name in before and name not in after]


def same_names(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """False: perhaps not."""
    return before is after or (_changed_between(before, after) is not None and _names(before) == _names(after))


def _names(table: Mapping[str, object]) -> int:
    return table.names if isinstance(table, Table) else -1


def _changed_between(before: Mapping[str, T], after: Mapping[str, T]) -> list[str] | None:
    """None: they know nothing of each other."""
    if isinstance(before, Table) and isinstance(after, Table) and before.log is after.log and before.at <= after.at:
        return list(dict.fromkeys(after.log[before.at : after.at]))
    return None
