"""A prefix of the store, held in memory: lists, then watches, and compares itself with the store every minute.

Rules:
- The watch is a hint, the listing is the truth: whatever the watch lost, repeated or mixed up, the next compare heals it.
- One change, one `on_change(key, entry or None)`, called synchronously; what is unchanged is never reported again.
- All time comes from the clock; an outage is waited out, never raised. Only StoreDenied and faults in `on_change` end `run`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from typing import Final, Protocol

from controller.store.mirror_table import Table
from model.store_port import Entry, Listing, Store, StoreCompacted, StoreDenied, StoreError

COMPARE_EVERY_S: Final = 60.0
RETRY_S: Final = 0.2
RETRY_S_MAX: Final = 5.0
LOOK_AFTER_S: Final = 2.0
"""So long somebody waits for the watch to show a change before the store is asked."""


class Timer(Protocol):
    """The part of model.ports.Clock that a mirror needs."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class _Stale(Exception):
    """What we hold cannot be gone on from: list again."""


class Mirror:
    """`run()` keeps it fresh (its errors come in an ExceptionGroup); the rest reads.

    `healed` counts changes that the watch lost and a compare found. `keep_values` False: `get` and `items` have no values, for
    who decodes and keeps what `on_change` tells. `on_listed(revision)`: all that a listing said was told.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        clock: Timer,
        on_change: Callable[[str, Entry | None], None] = lambda key, entry: None,
        *,
        compare_every_s: float = COMPARE_EVERY_S,
        keep_values: bool = True,
        on_listed: Callable[[int], None] = lambda revision: None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock
        self._compare_every_s = compare_every_s
        self._table = Table(on_change, keep_values)
        self._on_listed = on_listed
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = 0
        self._batches = 0
        self._looking = asyncio.Lock()
        self.fresh_at = float("-inf")
        """When the store was last listed with success (by the clock)."""

    # ---- reading

    @property
    def revision(self) -> int:
        """Every change up to and with this revision is in here. 0: nothing was listed yet."""
        return self._table.revision

    @property
    def healed(self) -> int:
        return self._table.healed

    def get(self, key: str) -> Entry | None:
        return self._table.get(key)

    def items(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Key and entry, sorted by key, of what is there now (a copy: it may change while you go through it)."""
        return iter(self._table.items(prefix))

    async def wait_for(self, revision: int) -> None:
        """Waits until the mirror shows `revision`: that of a transaction that changed something under its prefix, or 1 for the
        first listing. A revision that changed nothing under the prefix, or that the watch has lost, is shown by a compare."""
        if self.revision >= revision:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tickets += 1
        self._waiters.insert(bisect_left(self._waiters, (revision, self._tickets)), (revision, self._tickets, waiter))
        look_after_s = LOOK_AFTER_S
        while not waiter.done():
            pause = asyncio.ensure_future(self._clock.sleep(look_after_s))
            try:
                await asyncio.wait({waiter, pause}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                waiter.cancel()
                raise
            finally:
                pause.cancel()
            if not waiter.done() and self.revision:  # the watch may have lost it: nobody waits a minute for that
                with suppress(_Stale):
                    await self._look(revision)
            look_after_s = min(self._compare_every_s, 2 * look_after_s)

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self.revision:
            waiter = self._waiters.pop(0)[2]
            if not waiter.done():
                waiter.set_result(None)

    async def compared(self) -> None:
        """Compares now: what the watch lost until this call is here then."""
        with suppress(_Stale):  # the next compare by itself finds that too
            await self._look()

    # ---- keeping fresh

    async def run(self) -> None:
        """For ever. Cancel it to end it."""
        while True:
            async with self._looking:
                self._table.replace(await self._list())
                self._refreshed()
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._watch())
                    both.create_task(self._compare())
            except* (_Stale, StoreCompacted):
                pass  # list again

    async def _watch(self) -> None:
        """Applies changes until they are compacted away under us, or the store refuses us."""
        pause_s = RETRY_S
        while True:
            try:
                async with aclosing(self._store.watch(self._prefix, self.revision + 1)) as batches:
                    async for batch in batches:
                        pause_s = RETRY_S
                        self._batches += 1
                        self._table.apply(batch)
                        self._wake()
            except (StoreCompacted, StoreDenied):
                raise
            except StoreError:
                pass
            await self._clock.sleep(pause_s)
            pause_s = min(RETRY_S_MAX, 2 * pause_s)

    async def _compare(self) -> None:
        before, healed = self._batches, self.healed
        while True:
            await self._clock.sleep(self._compare_every_s)
            batches = self._batches
            changed = await self._look()
            if self.healed > healed or (changed and self._batches == before == batches):
                raise _Stale  # the watch loses changes, or gave nothing for a whole period while there were some: a new one
            before = self._batches

    async def _look(self, shows: int | None = None) -> int:
        """One compare; how many keys it put right. `shows`: none when that revision is shown by then."""
        async with self._looking:
            known = self.revision
            if shows is not None and known >= shows:
                return 0
            self._table.start_compare()
            listing = await self._list()
            if listing.revision < known:
                raise _Stale  # the store was set back to an older copy of itself
            changed = self._table.compare(listing)
            self._refreshed()
        return changed

    async def _list(self) -> Listing:
        pause_s = RETRY_S
        while True:
            try:
                return await self._store.list(self._prefix)
            except StoreDenied:
                raise
            except StoreError:
                await self._clock.sleep(pause_s)
                pause_s = min(RETRY_S_MAX, 2 * pause_s)

    def _refreshed(self) -> None:
        self.fresh_at = self._clock.now()
        self._on_listed(self._table.floor)
        self._wake()
