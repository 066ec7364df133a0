"""What the controller has not been told yet: changed replicas, gone ones, events. Coalesced until somebody takes them.

Rules: the newest state of a replica is all that counts. Nothing is lost without a session: a new one sends the whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agent.plan.records import ReplicaId
from model.documents import Event, ReplicaStatus

_EVENTS_MAX = 500


@dataclass(slots=True)
class Batch:
    changed: dict[ReplicaId, ReplicaStatus] = field(default_factory=dict)
    gone: dict[ReplicaId, None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    volumes: tuple[str, ...] | None = None

    def empty(self) -> bool:
        return not (self.changed or self.gone or self.events or self.volumes is not None)


class Reporter:
    """Filled by the runner, emptied by the session."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._batch = Batch()
        self._volumes: tuple[str, ...] = ()

    def changed(self, status: ReplicaStatus) -> None:
        key = ReplicaId(status.service_id, status.slot, status.created_ms, status.version)
        self._batch.gone.pop(key, None)
        self._batch.changed[key] = status
        self.news.set()

    def gone(self, replica: ReplicaId) -> None:
        self._batch.changed.pop(replica, None)
        self._batch.gone[replica] = None
        self.news.set()

    def event(self, event: Event) -> None:
        """The oldest are dropped when nobody takes them for long."""
        self._batch.events.append(event)
        del self._batch.events[:-_EVENTS_MAX]
        self.news.set()

    def volumes(self, names: tuple[str, ...]) -> None:
        if names != self._volumes:
            self._volumes = self._batch.volumes = names
            self.news.set()

    def known_volumes(self) -> tuple[str, ...]:
        return self._volumes

    def take(self) -> Batch:
        batch, self._batch = self._batch, Batch()
        self.news.clear()
        return batch

    def restart(self) -> list[Event]:
        """A whole status is about to be sent: what is pending is in it, but the events."""
        return self.take().events
