"""One controller's way to the one store in memory: delay, outages, unknown outcomes, lost watches.

Rules:
- A call is a request that arrives, is done, and is answered, each at its own moment. What has left goes on without its process:
  a paused one finds the answer when it continues. Of a process that is killed nothing arrives later: what is on its way then
  happens at that moment or never, by chance.
- Without faults a side keeps every promise of model/store_port.py; with them too, except that watches lose changes (as etcd
  3.4 does) and that guards fail although nobody was quicker.
- Faults are looked at when something arrives, so they can be set and lifted at any time.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol, TypeVar

from controller.store.checks import check_key
from controller.store.memory import LOST, MemoryStore
from model.documents import PREFIX
from model.store_port import (
    Delete,
    Entry,
    Guard,
    Listing,
    Op,
    Put,
    Store,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnknown,
    TxnResult,
    WatchBatch,
)

T = TypeVar("T")
NEAR_S: Final = (0.001, 0.003)
"""There and back, when all is well."""
CALL_S: Final = 5.0
"""The longest a call takes (the real client's call_timeout_s)."""
LATE_S: Final = 0.5
"""So long after "the outcome is unknown" the request may still arrive."""
LOOK_S: Final = 0.1
"""How often a client looks whether the store is back."""
ENDED_S: Final = 0.001
"""A lease ends so much after its time."""


@dataclass(slots=True)
class StoreFaults:
    """Rates are of 1. `slow_s`: about so much longer; `unknown`: half of them take effect; `conflict`: guards that fail for
    nothing; `read_only`: no space for puts; `watch_loses`: batches; `watch_late_s`: at most so much later."""

    slow_s: float = 0.0
    unknown: float = 0.0
    conflict: float = 0.0
    unavailable: bool = False
    read_only: bool = False
    watch_loses: float = 0.0
    watch_late_s: float = 0.0


class Owner(Protocol):
    """The part of sim.process.Process that is needed."""

    @property
    def on_death(self) -> list[Callable[[], None]]: ...


class Lines(Protocol):
    """The part of sim.trace.Trace that is needed."""

    def add(self, kind: str, about: str, text: str = "") -> None: ...


@dataclass(slots=True)
class _Request:
    """A call on its way. `work` does it at the store; `back_s`: how long the answer takes; `lost`: there will be none."""

    work: Callable[[], Coroutine[Any, Any, Any]]
    reply: asyncio.Future[Any]
    back_s: float
    writes: bool
    guarded: bool = False
    puts: bool = False
    lost: bool = False


class StoreSide(Store):
    """`faults` may be changed at any time. `process`: whose side it is; its death is the death of what it has sent.

    `store` is told the time by the loop: `MemoryStore(now=loop.time)`.
    """

    def __init__(
        self,
        store: MemoryStore,
        place: str,
        process: Owner,
        loop: asyncio.AbstractEventLoop,
        rng: Random,
        trace: Lines,
        faults: StoreFaults | None = None,
    ) -> None:
        self.shared = store
        self._place = place
        self._loop = loop
        self._rng = rng
        self._trace = trace
        self._world = Context()
        self._sent: dict[int, _Request] = {}
        self._number = 0
        self.faults = faults if faults is not None else StoreFaults()
        process.on_death.append(self._died)
        if not any(isinstance(listener, WritesTold) for listener in store.on_write):
            store.on_write.append(WritesTold(trace))

    # ---- the port

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        return await self._call(lambda: self.shared.get(key))

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        check_key(prefix)
        return await self._call(lambda: self.shared.list(prefix, revision=revision))

    async def txn(self, guards: Sequence[Guard], ops: Sequence[Op]) -> TxnResult:
        guards, ops = tuple(guards), tuple(ops)
        puts = any(isinstance(op, Put) for op in ops)
        work = lambda: self.shared.txn(guards, ops, by=self._place)  # noqa: E731
        return await self._call(work, writes=True, guarded=bool(guards), puts=puts)

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        check_key(prefix)
        return self._follow(prefix, from_revision or self.shared.revision + 1)

    async def lease_grant(self, ttl_s: int) -> int:
        async def grant() -> int:
            lease = await self.shared.lease_grant(ttl_s)
            self._expire_after(ttl_s)
            return lease

        return await self._call(grant, writes=True, puts=True)

    async def lease_keepalive(self, lease: int) -> int:
        async def renew() -> int:
            ttl_s = await self.shared.lease_keepalive(lease)
            self._expire_after(ttl_s)
            return ttl_s

        return await self._call(renew)

    async def lease_revoke(self, lease: int) -> None:
        await self._call(lambda: self.shared.lease_revoke(lease), writes=True)

    async def close(self) -> None:
        """Nothing to close."""

    def _expire_after(self, ttl_s: int) -> None:
        """The store has no timer of its own; without this an end would be seen only by whoever asks next."""
        self._loop.call_later(ttl_s + ENDED_S, self.shared.expire, context=self._world)

    # ---- a call

    async def _call(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        *,
        writes: bool = False,
        guarded: bool = False,
        puts: bool = False,
    ) -> T:
        """Sends it and waits. Raises what the store raises, StoreUnavailable, and if it `writes` StoreUnknown."""
        await self._reached(CALL_S)
        there_s, back_s = self._way_s(), self._way_s()
        reply: asyncio.Future[T] = self._loop.create_future()
        request = _Request(work, reply, back_s, writes, guarded, puts)
        self._number += 1
        number = self._number
        if self.faults.unknown and self._rng.random() < self.faults.unknown:
            there_s = self._lose(request, there_s)
        elif there_s + back_s > CALL_S:
            self._later(CALL_S, self._break, request)
        if there_s < CALL_S + LATE_S:
            self._sent[number] = request
            self._later(there_s, self._arrive, number)
        return await reply

    def _lose(self, request: _Request, there_s: float) -> float:
        """The answer will be that nobody knows; when the request arrives, of which half do (else: never)."""
        rng, request.lost = self._rng, True
        answer_s = there_s + (request.back_s if rng.random() < 0.5 else rng.uniform(0.0, CALL_S - there_s))
        self._later(min(answer_s, CALL_S), self._break, request)
        if rng.random() < 0.5:
            return float("inf")
        return there_s if rng.random() < 0.5 else answer_s + rng.uniform(0.0, LATE_S)

    async def _reached(self, within_s: float) -> None:
        """Waits for the store to be there. Raises StoreUnavailable when that takes too long."""
        until = self._loop.time() + within_s
        while self.faults.unavailable:
            if self._loop.time() >= until:
                raise StoreUnavailable(f"store: no connection within {within_s:g} s")
            await asyncio.sleep(LOOK_S)

    def _way_s(self) -> float:
        """One way."""
        low, high = NEAR_S
        slow_s = self.faults.slow_s
        return 0.5 * (self._rng.uniform(low, high) + (self._rng.uniform(0.5, 1.5) * slow_s if slow_s else 0.0))

    def _later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """In the world: it happens whatever becomes of the process."""
        self._loop.call_later(seconds, call, *arguments, context=self._world)

    def _arrive(self, number: int) -> None:
        request = self._sent.pop(number, None)
        if request is None:
            return  # its process was killed: settled then
        if self.faults.unavailable:
            self._break(request)
            return
        try:
            answer: Any = self._refused(request)
            if answer is None:
                answer = _done(request.work())
            self._later(request.back_s, self._answer, request, answer, None)
        except StoreError as error:
            self._later(request.back_s, self._answer, request, None, error)

    def _refused(self, request: _Request) -> TxnResult | None:
        if self.faults.read_only and request.puts:
            raise StoreFull("store: out of space: nothing was written")
        if request.guarded and self.faults.conflict and self._rng.random() < self.faults.conflict:
            self._trace.add("store", self._place, "a guard fails for nothing")
            return TxnResult(False, self.shared.revision)
        return None

    def _answer(self, request: _Request, answer: Any, error: StoreError | None) -> None:
        if self.faults.unavailable:
            self._break(request)
        elif not request.lost and not request.reply.done():
            if error is None:
                request.reply.set_result(answer)
            else:
                request.reply.set_exception(error)

    def _break(self, request: _Request) -> None:
        """The answer never comes."""
        if request.reply.done():
            return
        self._trace.add("store", self._place, "an answer is lost" if request.writes else "no answer")
        lost = StoreUnknown(LOST) if request.writes else StoreUnavailable("store: no answer in time")
        request.reply.set_exception(lost)

    def _died(self) -> None:
        """Half of what is on its way was already there."""
        sent, self._sent = self._sent, {}
        for request in sent.values():
            if not self.faults.unavailable and self._rng.random() < 0.5:
                try:
                    if self._refused(request) is None:
                        _done(request.work())
                except StoreError:
                    pass  # nobody is there to be told

    # ---- a watch

    async def _follow(self, prefix: str, start: int) -> AsyncGenerator[WatchBatch, None]:
        async with aclosing(self.shared.watch(prefix, start)) as batches:
            async for batch in batches:
                await asyncio.sleep(self._way_s() + self._rng.uniform(0.0, self.faults.watch_late_s))
                await self._reached(float("inf"))
                if self.faults.watch_loses and self._rng.random() < self.faults.watch_loses:
                    self._trace.add("store", self._place, f"the watch loses revision {batch.revision}")
                    continue
                yield batch


class WritesTold:
    """Every write as lines of the trace, about the document: one for the whole store."""

    def __init__(self, trace: Lines) -> None:
        self._trace = trace

    def __call__(self, by: str, ops: Sequence[Op], revision: int) -> None:
        for op in ops:
            if isinstance(op, Put):
                kind, about, text = "put", op.key, f"{len(op.value)} bytes {zlib.crc32(op.value):08x}"
            else:
                kind, about, text = "delete", op.key if isinstance(op, Delete) else op.prefix, ""
            self._trace.add(kind, about.removeprefix(PREFIX), f"{revision} by {by or 'nobody'} {text}")


def _done(work: Coroutine[Any, Any, Any]) -> Any:
    """What a call of the store in memory answers: it never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise AssertionError("the store in memory waits")
