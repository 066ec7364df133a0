"""When which replica is to be looked at again.

Rules: pure; one time for each replica, the newest said. Times that were replaced are dropped when they come up.
"""

from __future__ import annotations

from heapq import heappop, heappush

from agent.plan.records import ReplicaId


class Timers:
    def __init__(self) -> None:
        self._heap: list[tuple[float, ReplicaId]] = []
        self._at: dict[ReplicaId, float] = {}

    def next(self) -> float | None:
        """The earliest time."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def set(self, replica: ReplicaId, at: float) -> None:
        if self._at.get(replica) != at:
            self._at[replica] = at
            heappush(self._heap, (at, replica))

    def drop(self, replica: ReplicaId) -> None:
        self._at.pop(replica, None)

    def due(self, now: float) -> list[ReplicaId]:
        """Whose time has come, earliest first; they have none any more."""
        found = []
        while (at := self.next()) is not None and at <= now:
            replica = heappop(self._heap)[1]
            del self._at[replica]
            found.append(replica)
        return found
