"""Writes what nodes say: one document a node, many nodes a transaction, at most every 50 ms; less often the more there is.

Rules: only the leader's key guards these writes: the leader is their one writer, on behalf of the nodes. What failed or is
unknown is simply written again: a status is whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from controller.dispatch.status import NodeStatus
from controller.loops.picture import Picture
from controller.loops.queue import DirtyQueue
from controller.loops.writer import PlanWriter, split
from model import codec
from model.documents import StatusDoc, key
from model.errors import ShoalError
from model.ports import Clock
from model.store_port import Op, Put

log = logging.getLogger(__name__)

RETRY_S = 0.2
SHARE: Final = 3
"""Of so many parts of the leader's time one at most is for writing statuses: while many nodes talk each is written once for
more of what it says."""
PAUSE_S_MAX: Final = 5.0
DOCUMENT_BYTES_MAX = 1_400_000
"""Below what the store takes in one transaction: one node that talks too much must not hold up what the others say."""


class StatusWriter:
    """`mark(node)` whenever a node has said something new; `run()` lives as long as the reign."""

    def __init__(self, picture: Picture, clock: Clock, status_of: Callable[[str], NodeStatus | None]) -> None:
        self._picture = picture
        self._clock = clock
        self._status_of = status_of
        self.queue = DirtyQueue()

    def mark(self, node: str) -> None:
        self.queue.add((node,))

    async def run(self, writer: PlanWriter) -> None:
        """For ever: until cancelled."""
        while True:
            nodes = await self.queue.take()
            started = self._clock.monotonic()
            try:
                known: dict[str, StatusDoc] = {}
                for run in split(self._puts(nodes, known)):
                    await writer.commit((), run, known)
                    known.clear()
            except ShoalError as error:
                log.warning("status of %d nodes not written: %s", len(nodes), error)
                self.queue.add(nodes)
                await asyncio.sleep(RETRY_S)
            self.queue.passed((self._clock.monotonic() - started) * (SHARE - 1), at_most_s=PAUSE_S_MAX)

    def _puts(self, nodes: tuple[str, ...], known: dict[str, StatusDoc]) -> Iterator[Op]:
        """Each made when it is asked for; its document goes to `known`."""
        for node in nodes:
            snapshot = self._picture.snapshot()
            status = self._status_of(node) if node in snapshot.of("nodes") else None
            now_ms = int(self._clock.now() * 1000)
            document = status.document(snapshot.of("status").get(node), now_ms) if status is not None else None
            if document is None:
                continue
            data = codec.encode(document)
            if len(data) > DOCUMENT_BYTES_MAX:
                text = "node %s: its status of %d replicas has %d bytes: not written"
                log.error(text, node, len(document.replicas), len(data))
                continue
            known[key("status", node)] = document
            yield Put(key("status", node), data)
