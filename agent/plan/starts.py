"""How many replicas may be starting at a time, first come first served.

Rules: pure. A permit is held from the first step of a start until the process runs or the start has failed.
"""

from __future__ import annotations

from agent.plan.records import ReplicaId


class Starts:
    """Permits and the queue for them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: dict[ReplicaId, None] = {}
        self._queue: dict[ReplicaId, None] = {}

    def holds(self, replica: ReplicaId) -> bool:
        return replica in self._holders

    def take(self, replica: ReplicaId) -> bool:
        """A permit if it is this replica's turn; else it waits in the queue."""
        if len(self._holders) >= self._limit or next(iter(self._queue), replica) != replica:
            self._queue[replica] = None
            return False
        self._queue.pop(replica, None)
        self._holders[replica] = None
        return True

    def leave(self, replica: ReplicaId) -> None:
        """Give the permit back, and the place in the queue."""
        self._holders.pop(replica, None)
        self._queue.pop(replica, None)

    def next(self) -> ReplicaId | None:
        """Whose turn it is; None while there is no room or nobody waits."""
        return next(iter(self._queue), None) if len(self._holders) < self._limit else None
