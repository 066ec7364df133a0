"""The store in memory: the same promises as etcd (model/store_port.py), for tests and for the simulation.

Rules: deterministic (ids count up, no randomness, no set is iterated) and without a clock or timer of its own: leases expire
by the `now` it is given, looked at whenever the store is touched, or when `expire()` is called. A watcher sleeps on an
asyncio.Event that a change sets, so a virtual-time loop can drive it. `fault` lets a test or the simulation break a call;
`on_write` hears of every transaction that changed something.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from controller.store.checks import check_key, check_txn
from model.store_port import (
    Delete,
    Entry,
    Event,
    Guard,
    Listing,
    Op,
    Put,
    StoreCompacted,
    StoreError,
    StoreFull,
    StoreLeaseLost,
    StoreUnavailable,
    StoreUnknown,
    TxnResult,
    WatchBatch,
)

LOST: Final = "store: the answer to a transaction was lost; it may or may not be written: read again"


OnWrite: TypeAlias = Callable[[str, list[Op], int], None]
"""(who wrote, what, the revision it took). Of a lease's end: ("", its keys as deletes, revision)."""


class Fault(Enum):
    """How a call is broken: before it is sent, after it took effect, or on the way (the caller cannot tell the last two)."""

    UNAVAILABLE = "unavailable"
    UNKNOWN_WRITTEN = "unknown_written"
    UNKNOWN_LOST = "unknown_lost"
    FULL = "full"


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    expires_at: float
    keys: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Change:
    event: Event
    before: Entry | None


class MemoryStore:
    """`history`: changes kept for watchers and old listings; older ones are compacted by themselves.

    `fault(call)`: asked once a call ("get", "list", "txn", "lease"); None lets it pass. `on_write` listeners must not write.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = lambda: 0.0,
        history: int = 100_000,
        fault: Callable[[str], Fault | None] | None = None,
    ) -> None:
        self._now = now
        self._history = history
        self._fault = fault
        self._revision = 1
        self._compacted = 0
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        self._log: list[_Change] = []
        self._leases: dict[int, _Lease] = {}
        self._lease_of: dict[str, int] = {}
        self._next_lease = 1
        self._watchers: dict[int, asyncio.Event] = {}
        self._next_watcher = 0
        self.on_write: list[OnWrite] = []

    # ---- reading

    @property
    def revision(self) -> int:
        return self._revision

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        self._enter("get")
        return self._entries.get(key)

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        check_key(prefix)
        self._enter("list")
        if revision in (0, self._revision):
            return Listing(self._revision, tuple(self._entries[key] for key in self._under(prefix)))
        if revision > self._revision:
            raise StoreError(f"store: revision {revision} is in the future; the store is at {self._revision}")
        if revision < self._compacted:
            raise StoreCompacted(self._compacted)
        return Listing(revision, self._as_it_stood(prefix, revision))

    def _under(self, prefix: str) -> Sequence[str]:
        start = bisect_left(self._keys, prefix)
        end = start
        while end < len(self._keys) and self._keys[end].startswith(prefix):
            end += 1
        return self._keys[start:end]

    def _as_it_stood(self, prefix: str, revision: int) -> tuple[Entry, ...]:
        then: dict[str, Entry | None] = {key: self._entries[key] for key in self._under(prefix)}
        for change in reversed(self._log):
            if change.event.mod_revision <= revision:
                break
            if change.event.key.startswith(prefix):
                then[change.event.key] = change.before
        return tuple(entry for _, entry in sorted(then.items()) if entry is not None)

    # ---- writing

    async def txn(self, guards: Sequence[Guard], ops: Sequence[Op], *, by: str = "") -> TxnResult:
        """`by`: who writes, for `on_write`."""
        check_txn(guards, ops)
        fault = self._enter("txn")
        if fault is Fault.FULL and any(isinstance(op, Put) for op in ops):
            raise StoreFull("store: out of space (asked for by a test)")
        if fault is Fault.UNKNOWN_LOST:
            raise StoreUnknown(LOST)
        result = self._apply(guards, ops, by)
        if fault is Fault.UNKNOWN_WRITTEN:
            raise StoreUnknown(LOST)
        return result

    def _apply(self, guards: Sequence[Guard], ops: Sequence[Op], by: str) -> TxnResult:
        for guard in guards:
            entry = self._entries.get(guard.key)
            if (entry.mod_revision if entry else 0) != guard.mod_revision:
                return TxnResult(False, self._revision)
        for op in ops:
            if isinstance(op, Put) and op.lease and op.lease not in self._leases:
                raise StoreLeaseLost(f"store: lease {op.lease} is gone: ask for a new one")
        changes: list[_Change] = []
        for op in ops:
            if isinstance(op, Put):
                changes.append(self._put(op))
            else:
                for key in [op.key] if isinstance(op, Delete) else self._under(op.prefix):
                    changes.extend(self._delete(key))
        self._commit(changes, by, ops)
        return TxnResult(True, self._revision)

    def _put(self, op: Put) -> _Change:
        before = self._entries.get(op.key)
        revision = self._revision + 1
        created, version = (before.create_revision, before.version + 1) if before else (revision, 1)
        self._entries[op.key] = Entry(op.key, op.value, revision, created, version)
        if before is None:
            insort(self._keys, op.key)
        self._hang(op.key, op.lease)
        return _Change(Event("put", op.key, op.value, revision, created, version), before)

    def _delete(self, key: str) -> Sequence[_Change]:
        before = self._entries.pop(key, None)
        if before is None:
            return ()
        self._keys.pop(bisect_left(self._keys, key))
        self._hang(key, 0)
        return (_Change(Event("delete", key, b"", self._revision + 1), before),)

    def _hang(self, key: str, lease: int) -> None:
        old = self._lease_of.pop(key, 0)
        if old in self._leases:
            self._leases[old].keys.pop(key, None)
        if lease:
            self._lease_of[key] = lease
            self._leases[lease].keys[key] = None

    def _commit(self, changes: Sequence[_Change], by: str, ops: Sequence[Op]) -> None:
        if not changes:
            return
        self._revision += 1
        self._log.extend(changes)
        if len(self._log) > 2 * self._history:
            self.compact(self._log[-self._history].event.mod_revision)
        for listener in self.on_write:
            listener(by, list(ops), self._revision)
        self._wake()

    # ---- watching

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        check_key(prefix)
        return self._follow(prefix, from_revision or self._revision + 1)

    async def _follow(self, prefix: str, start: int) -> AsyncGenerator[WatchBatch, None]:
        number, self._next_watcher = self._next_watcher, self._next_watcher + 1
        wake = self._watchers[number] = asyncio.Event()
        try:
            while True:
                wake.clear()
                if start < self._compacted:
                    raise StoreCompacted(self._compacted)
                first = bisect_left(self._log, start, key=lambda change: change.event.mod_revision)
                events = tuple(c.event for c in self._log[first:] if c.event.key.startswith(prefix))
                revision = self._revision
                start = max(start, revision + 1)
                if events:
                    yield WatchBatch(revision, events)
                if not wake.is_set():
                    await wake.wait()
        finally:
            del self._watchers[number]

    def _wake(self) -> None:
        for wake in self._watchers.values():
            wake.set()

    # ---- leases

    def leases(self) -> tuple[int, ...]:
        """The leases that are held now, oldest first."""
        self.expire()
        return tuple(self._leases)

    async def lease_grant(self, ttl_s: int) -> int:
        self._enter("lease")
        lease, self._next_lease = self._next_lease, self._next_lease + 1
        self._leases[lease] = _Lease(ttl_s, self._now() + ttl_s)
        return lease

    async def lease_keepalive(self, lease: int) -> int:
        self._enter("lease")
        if lease not in self._leases:
            raise StoreLeaseLost(f"store: lease {lease} is gone: ask for a new one")
        held = self._leases[lease]
        held.expires_at = self._now() + held.ttl_s
        return held.ttl_s

    async def lease_revoke(self, lease: int) -> None:
        self._enter("lease")
        self._end(lease)

    def expire(self) -> None:
        """Ends every lease whose time is over."""
        now = self._now()
        for lease in [lease for lease, held in self._leases.items() if held.expires_at <= now]:
            self._end(lease)

    def _end(self, lease: int) -> None:
        held = self._leases.get(lease)
        if held is None:
            return
        keys = list(held.keys)
        changes = [change for key in keys for change in self._delete(key)]
        del self._leases[lease]
        self._commit(changes, "", [Delete(key) for key in keys])

    # ---- administration, for tests

    def compact(self, revision: int) -> None:
        """Forgets changes before `revision`: watchers that have not had them, and older listings, get StoreCompacted."""
        self._compacted = max(self._compacted, min(revision, self._revision))
        keep = bisect_left(self._log, self._compacted, key=lambda change: change.event.mod_revision)
        del self._log[:keep]
        self._wake()

    async def close(self) -> None:
        """Nothing to close."""

    def _enter(self, call: str) -> Fault | None:
        self.expire()
        fault = self._fault(call) if self._fault else None
        if fault is Fault.UNAVAILABLE or (fault is not None and call in ("get", "list")):
            raise StoreUnavailable(f"store: not reachable for {call} (asked for by a test)")
        return fault
