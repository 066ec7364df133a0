"""What the replicas of each priority have of each node: kept by the index, so that preemption need not search all assignments.

Rules: a cache as the index is. Nothing is counted before it is asked for the first time, and then all anew after a service with
replicas got another priority. Global services are left out: they are never stopped for others.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from model.documents import ServiceDoc
from scheduler import Amounts, Load

if TYPE_CHECKING:
    from controller.decide.index import Index


class Ranks:
    """`counted`: whether the loads are kept at the moment."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._of: dict[str, int] = {}
        self._numbers: Counter[int] = Counter()
        self._asking: dict[str, int] = {}
        """Those of global services, which may stop others."""
        self._loads: dict[int, dict[str, Load]] = {}
        self.counted = False

    def know(self, name: str, doc: ServiceDoc | None) -> None:
        """The service is now like this; None: gone."""
        old = self._of.pop(name, None)
        self._asking.pop(name, None)
        new = None if doc is None else doc.spec.priority
        if doc is not None and doc.spec.mode.startswith("global"):
            self._asking[name], new = doc.spec.priority, None
        if old is not None:
            self._numbers[old] -= 1
            if not self._numbers[old]:
                del self._numbers[old]
        if new is not None:
            self._of[name] = new
            self._numbers[new] += 1
        if old != new and self.counted and name in self._index.placed:
            self.counted = False

    def of(self, name: str) -> int | None:
        """The service's priority; None for a global one, or one that is not there."""
        return self._of.get(name)

    @property
    def several(self) -> bool:
        """Whether services differ in priority at all."""
        return len(self._numbers) > 1 or any(rank not in self._numbers for rank in self._asking.values())

    def any_below(self, priority: int) -> bool:
        """Whether some service has less."""
        return bool(self._numbers) and min(self._numbers) < priority

    def biggest(self, priority: int) -> Amounts:
        """The most of each resource that one replica of a service with this priority, or with less, reserves."""
        found = [self._index.amounts(name) for name, rank in self._of.items() if rank <= priority]
        return Amounts(*(max(column) for column in zip(*found, strict=True))) if found else Amounts()

    def below(self, priority: int) -> list[tuple[int, dict[str, Load]]]:
        """By priority, the lowest first, what is given away on each node."""
        if not self.counted:
            self._count()
        return sorted((rank, loads) for rank, loads in self._loads.items() if rank < priority)

    def add(self, node: str, count: int, price: Amounts, service: str) -> None:
        rank = self._of.get(service)
        if rank is not None:
            loads = self._loads.setdefault(rank, {})
            had = loads.get(node, Load())
            loads[node] = Load(
                had.replicas + count, had.cpus + count * price.cpus, had.memory + count * price.memory,
                had.pids + count * price.pids,
            )  # fmt: skip

    def _count(self) -> None:
        self._loads = {}
        self.counted = True
        for name in self._of:
            price = self._index.amounts(name)
            for node, entry in self._index.placed.get(name, {}).items():
                self.add(node, entry.count, price, name)
