"""The ring of events: what was decided and seen, in a bounded number of chunk documents.

Rules: at most CHUNKS documents of CHUNK events; the newest overwrites the oldest. Events are written soon after what they tell
of, not with it: the sentence that must not be lost stands in the decision document of the same transaction. What waits to be
written is bounded too: when too much comes at once the oldest goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from controller.loops.picture import Change, Snapshot
from controller.loops.queue import DirtyQueue
from controller.loops.writer import PlanWriter
from model import codec
from model.documents import Event, EventChunkDoc, key
from model.errors import ShoalError
from model.store_port import Guard, Put

log = logging.getLogger(__name__)

CHUNKS: Final = 64
CHUNK: Final = 100
WAITING_MAX: Final = 2_000
RETRY_S: Final = 0.5


def in_order(chunks: Mapping[str, EventChunkDoc], after: int = 0) -> list[tuple[int, Event]]:
    """(sequence number, event) of every event with a number above `after`, oldest first."""
    rows: list[tuple[int, Event]] = []
    for chunk in sorted(chunks.values(), key=lambda chunk: chunk.first):
        if chunk.first + len(chunk.events) > after:
            rows.extend((chunk.first + at, event) for at, event in enumerate(chunk.events) if chunk.first + at > after)
    return rows


def next_chunk(chunks: Mapping[str, EventChunkDoc], events: Iterable[Event]) -> tuple[str, EventChunkDoc, int]:
    """The name and content of the chunk to write, and how many of `events` fit in. Numbers count from 1."""
    newest = max(chunks.values(), key=lambda chunk: chunk.first, default=EventChunkDoc(1))
    if len(newest.events) >= CHUNK:
        newest = EventChunkDoc(newest.first + len(newest.events))
    taken = tuple(events)[: CHUNK - len(newest.events)]
    name = f"{(newest.first - 1) // CHUNK % CHUNKS:04d}"
    return name, EventChunkDoc(newest.first, newest.events + taken), len(taken)


def joined(changes: Iterable[Change]) -> list[Event]:
    """That a machine has joined, or joined again under its name. Told from the document, so that it does not matter which
    controller's API took it in."""
    news = [row.new for row in changes if row.kind == "nodes" and row.new and (row.old is None or row.old.id != row.new.id)]
    return [Event(row.joined_ms, "node", f"node/{row.name}", f"node {row.name} joined the cluster", row.name) for row in news]


class EventLog:
    """`say` at any time; `run` writes for as long as the reign lasts."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque(maxlen=WAITING_MAX)
        self._queue = DirtyQueue()

    def say(self, events: Iterable[Event]) -> None:
        self._waiting.extend(events)
        if self._waiting:
            self._queue.add(("events",))

    async def run(self, writer: PlanWriter, snapshot: Callable[[], Snapshot]) -> None:
        """For ever: until cancelled."""
        while True:
            await self._queue.take()
            try:
                while self._waiting:
                    await self._write_one(writer, snapshot())
            except ShoalError as error:
                log.info("events: %s", error)
                self._queue.add(("events",))
                await asyncio.sleep(RETRY_S)
            self._queue.passed(0.0)

    async def _write_one(self, writer: PlanWriter, snapshot: Snapshot) -> None:
        events = tuple(self._waiting)
        name, chunk, taken = next_chunk(snapshot.of("events"), events)
        path = key("events", name)
        await writer.commit([Guard(path, snapshot.revision(path))], [Put(path, codec.encode(chunk))])
        for event in events[:taken]:
            if self._waiting and self._waiting[0] is event:  # else the deque was full and has dropped it meanwhile
                self._waiting.popleft()
