"""Who leads: one key with a lease. A reign is the time from taking the key to losing it.

Rules:
- The key is taken in one transaction that compares what was seen of it, and raises the epoch in the cluster document.
- A reign ends by its own clock: when the lease was not renewed for its time to live, nothing is decided any more, whatever
  the store says. The guard on the key makes even a late write harmless.
- A stale key of this same controller (same data directory, which only one process can hold) is taken over at once; that of
  another controller must run out first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from controller.loops.picture import Change, Picture
from model import codec
from model.documents import ClusterDoc, LeaderDoc, key
from model.errors import StoreError, Unavailable
from model.ports import Clock, Random
from model.store_port import Guard, Put, Store, StoreLeaseLost

log = logging.getLogger(__name__)

LEADER_KEY: Final = key("leader")
CLUSTER_KEY: Final = key("cluster")
TTL_S: Final = 3
RENEW_S: Final = 1.0
RETRY_S: Final = 0.5


class NotLeader(Unavailable):
    code = "not_leader"

    def __init__(self) -> None:
        super().__init__("this controller does not lead: ask again, or ask the leader")


@dataclass(slots=True)
class Reign:
    """`guard` belongs into every write of the leader. `started_s`, `good_until`: monotonic seconds; nodes' silence counts from
    `started_s`."""

    guard: Guard
    epoch: int
    cluster_id: str
    lease: int
    started_s: float
    monotonic: Callable[[], float] = field(repr=False)
    good_until: float = 0.0

    def valid(self) -> bool:
        return self.monotonic() < self.good_until

    def check(self) -> None:
        """Raises NotLeader when the lease may have run out."""
        if not self.valid():
            raise NotLeader


Lead = Callable[[Reign], Awaitable[None]]


class Election:
    """`run(lead)`: for ever; `lead(reign)` runs while this controller leads and is cancelled when the reign ends."""

    def __init__(
        self, store: Store, picture: Picture, clock: Clock, random: Random, me: LeaderDoc, ttl_s: int = TTL_S
    ) -> None:
        self._store = store
        self._picture = picture
        self._clock = clock
        self._random = random
        self._me = me
        self._ttl_s = ttl_s
        self._changed = asyncio.Event()
        self.reign: Reign | None = None

    async def run(self, lead: Lead) -> None:
        unsubscribe = self._picture.subscribe(self._on_changes)
        try:
            while True:
                try:
                    reign = await self._campaign()
                except StoreError as error:
                    log.warning("election: %s", error)
                    reign = None
                if reign is None:
                    await self._pause()
                else:
                    await self._reign(reign, lead)
        finally:
            unsubscribe()

    def _on_changes(self, changes: list[Change]) -> None:
        if any(change.kind == "leader" for change in changes):
            self._changed.set()

    async def _pause(self) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._changed.wait()

    async def _campaign(self) -> Reign | None:
        """Takes the key if it is free or ours. None: another controller holds it, or was quicker."""
        entry = await self._store.get(LEADER_KEY)
        if entry is not None and codec.decode(LeaderDoc, entry.value).id != self._me.id:
            return None
        cluster_entry = await self._store.get(CLUSTER_KEY)
        now_ms = int(self._clock.now() * 1000)
        if cluster_entry is None:
            cluster = ClusterDoc(self._random.token_hex(8), created_ms=now_ms)
        else:
            cluster = codec.decode(ClusterDoc, cluster_entry.value)
        cluster = replace(cluster, epoch=cluster.epoch + 1)
        asked_at = self._clock.monotonic()
        lease = await self._store.lease_grant(self._ttl_s)
        me = replace(self._me, epoch=cluster.epoch, since_ms=now_ms)
        held = [
            Guard(LEADER_KEY, entry.mod_revision if entry else 0),
            Guard(CLUSTER_KEY, cluster_entry.mod_revision if cluster_entry else 0),
        ]
        puts = [Put(LEADER_KEY, codec.encode(me), lease), Put(CLUSTER_KEY, codec.encode(cluster))]
        result = await self._store.txn(held, puts)
        if not result.ok:
            await self._store.lease_revoke(lease)
            return None
        self._picture.from_own_puts([(put.key, put.value) for put in puts], result.revision)
        guard = Guard(LEADER_KEY, result.revision)
        return Reign(guard, cluster.epoch, cluster.id, lease, asked_at, self._clock.monotonic, asked_at + self._ttl_s)

    async def _reign(self, reign: Reign, lead: Lead) -> None:
        self.reign = reign
        log.info("election: %s leads, epoch %d", self._me.controller, reign.epoch)
        task = asyncio.ensure_future(lead(reign))
        renewing = asyncio.ensure_future(self._renew(reign))
        try:
            await asyncio.wait({task, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.reign = None
            reign.good_until = 0.0
            await _stop(renewing)
            await _stop(task)
            log.info("election: reign of epoch %d is over", reign.epoch)
            await self._release(reign)
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _renew(self, reign: Reign) -> None:
        """Returns when the reign is over."""
        while reign.valid():
            await self._clock.sleep(min(RENEW_S, max(0.05, reign.good_until - self._clock.monotonic())))
            document = self._picture.snapshot().one("leader")
            if document is not None and document.epoch > reign.epoch:
                log.warning("election: %s has taken over", document.controller)
                return
            asked_at = self._clock.monotonic()
            try:
                async with asyncio.timeout(max(0.05, reign.good_until - asked_at)):
                    ttl_s = await self._store.lease_keepalive(reign.lease)
            except StoreLeaseLost:
                log.warning("election: the lease is gone")
                return
            except (StoreError, TimeoutError) as error:
                log.warning("election: lease not renewed: %s", str(error) or "no answer in time")
            else:
                reign.good_until = asked_at + min(ttl_s, self._ttl_s)

    async def _release(self, reign: Reign) -> None:
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._store.lease_revoke(reign.lease)


async def _stop(task: asyncio.Future[None]) -> None:
    """`wait` does not raise what the task raised; our own cancelling passes on, or the end would wait for ever."""
    task.cancel()
    await asyncio.wait({task})
