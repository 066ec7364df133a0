"""Writes what nodes say: one document a node, many nodes a transaction, at most every 50 ms.

Rules: only the leader's key guards these writes: the leader is their one writer, on behalf of the nodes. What failed or is
unknown is simply written again: a status is whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from controller.dispatch.status import NodeStatus
from controller.loops.picture import Picture
from controller.loops.queue import DirtyQueue
from controller.loops.writer import PlanWriter, split
from model import codec
from model.documents import key
from model.errors import ShoalError
from model.ports import Clock
from model.store_port import Op, Put

log = logging.getLogger(__name__)

RETRY_S = 0.2
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
                for run in split(self._puts(nodes)):
                    await writer.commit((), run)
            except ShoalError as error:
                log.warning("status of %d nodes not written: %s", len(nodes), error)
                self.queue.add(nodes)
                await asyncio.sleep(RETRY_S)
            self.queue.passed(self._clock.monotonic() - started)

    def _puts(self, nodes: tuple[str, ...]) -> list[Op]:
        statuses, known = self._picture.snapshot().of("status"), self._picture.snapshot().of("nodes")
        now_ms = int(self._clock.now() * 1000)
        puts: list[Op] = []
        for node in nodes:
            status = self._status_of(node)
            document = status.document(statuses.get(node), now_ms) if status and node in known else None
            if document is None:
                continue
            data = codec.encode(document)
            if len(data) > DOCUMENT_BYTES_MAX:
                text = "node %s: its status of %d replicas has %d bytes: not written"
                log.error(text, node, len(document.replicas), len(data))
                continue
            puts.append(Put(key("status", node), data))
        return puts
