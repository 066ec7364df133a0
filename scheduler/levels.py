"""How many replicas of one service each node has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.pool import Pool


class Levels:
    """From counts by the nodes' names. The nodes' numbers are made late: most placements ask for few of them."""

    __slots__ = ("_all", "_given", "_pool")

    def __init__(self, pool: Pool, given: Mapping[str, int]) -> None:
        self._pool, self._given = pool, given
        self._all: dict[int, int] | None = None

    def __bool__(self) -> bool:
        return bool(self._given if self._all is None else self._all)

    def of(self, i: int) -> int:
        return self._given.get(self._pool.names[i], 0) if self._all is None else self._all.get(i, 0)

    def all(self) -> dict[int, int]:
        """By number, only nodes that have some; what is changed in it counts from then on."""
        if self._all is None:
            at = self._pool.at
            self._all = {at[name]: count for name, count in self._given.items() if count and name in at}
        return self._all

    def copy(self) -> Levels:
        copy = Levels(self._pool, self._given)
        copy._all = dict(self.all())
        return copy

    def add(self, order: Iterable[int]) -> None:
        """One more on each of these."""
        known = self.all()
        for i in order:
            known[i] = known.get(i, 0) + 1
