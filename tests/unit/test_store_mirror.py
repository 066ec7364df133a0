"""The mirror heals from whatever the watch does, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.store.memory import Fault, MemoryStore
from controller.store.mirror import LOOK_AFTER_S, Mirror
from controller.store.mirror_table import Table
from model.store_port import Delete, Entry, Event, Guard, Listing, Op, Put, WatchBatch

P = "/p/"


class HandClock:
    """Time moves only by `advance`."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.time + seconds, future))
        await future

    async def advance(self, seconds: float) -> None:
        self.time += seconds
        due = [future for until, future in self.sleepers if until <= self.time]
        self.sleepers = [(until, future) for until, future in self.sleepers if until > self.time]
        for future in due:
            if not future.done():
                future.set_result(None)
        await settle()


class LossyStore(MemoryStore):
    """Its watch gives only the batches that `passes` lets through."""

    passes: Callable[[WatchBatch], bool] = staticmethod(lambda batch: True)
    watches = 0

    async def _follow(self, prefix: str, start: int) -> AsyncGenerator[WatchBatch, None]:
        self.watches += 1
        async for batch in super()._follow(prefix, start):
            if self.passes(batch):
                yield batch


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


Changes = list[tuple[str, bytes | None]]


@asynccontextmanager
async def running(store: MemoryStore, clock: HandClock) -> AsyncIterator[tuple[Mirror, Changes]]:
    changes: Changes = []
    mirror = Mirror(store, P, clock, lambda key, entry: changes.append((key, entry.value if entry else None)))
    task = asyncio.create_task(mirror.run())
    try:
        await settle()
        yield mirror, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def values(mirror: Mirror) -> dict[str, bytes]:
    return {key: entry.value for key, entry in mirror.items()}


async def put(store: MemoryStore, key: str, value: bytes) -> int:
    return (await store.txn([], [Put(P + key, value)])).revision


async def test_lists_then_follows_and_reports_each_change_once() -> None:
    store, clock = MemoryStore(), HandClock()
    await put(store, "a", b"1")
    await store.txn([], [Put("/other", b"x")])
    async with running(store, clock) as (mirror, changes):
        revision = await put(store, "b", b"2")
        await mirror.wait_for(revision)
        await store.txn([], [Delete(P + "a"), Put(P + "b", b"3")])
        await settle()
        await clock.advance(60)
        await clock.advance(60)
        assert changes == [(P + "a", b"1"), (P + "b", b"2"), (P + "a", None), (P + "b", b"3")]
        assert values(mirror) == {P + "b": b"3"}
        assert (mirror.healed, mirror.fresh_at) == (0, 120.0)
        entry = mirror.get(P + "b")
        assert entry is not None
        assert (await store.txn([Guard(P + "b", entry.mod_revision)], [])).ok


async def test_a_lost_batch_is_healed_by_the_compare_and_the_watch_is_made_anew() -> None:
    store, clock = LossyStore(), HandClock()
    await put(store, "a", b"1")
    async with running(store, clock) as (mirror, changes):
        store.passes = lambda batch: False
        await store.txn([], [Put(P + "b", b"lost"), Delete(P + "a")])
        await settle()
        store.passes = lambda batch: True
        await put(store, "c", b"seen")
        await settle()
        assert values(mirror) == {P + "a": b"1", P + "c": b"seen"}
        await clock.advance(60)
        assert values(mirror) == {P + "b": b"lost", P + "c": b"seen"}
        assert changes[-2:] == [(P + "a", None), (P + "b", b"lost")]
        assert mirror.healed == 2
        assert store.watches == 2


async def test_a_compare_that_is_asked_for_heals_at_once_and_the_next_one_makes_a_new_watch() -> None:
    store, clock = LossyStore(), HandClock()
    async with running(store, clock) as (mirror, _):
        store.passes = lambda batch: False
        await put(store, "a", b"lost")
        await settle()
        store.passes = lambda batch: True
        await put(store, "b", b"seen")
        await settle()
        await mirror.compared()
        assert values(mirror) == {P + "a": b"lost", P + "b": b"seen"}
        assert (mirror.healed, store.watches) == (1, 1)
        await clock.advance(60)
        assert store.watches == 2


async def test_who_waits_for_what_the_watch_has_lost_waits_for_no_minute() -> None:
    store, clock = LossyStore(), HandClock()
    async with running(store, clock) as (mirror, _):
        store.passes = lambda batch: False
        revision = await put(store, "a", b"1")
        waiting = asyncio.ensure_future(mirror.wait_for(revision))
        await settle()
        assert not waiting.done()
        await clock.advance(LOOK_AFTER_S)
        assert waiting.done()
        assert values(mirror) == {P + "a": b"1"}


async def test_a_watch_that_has_gone_deaf_is_replaced() -> None:
    store, clock = LossyStore(), HandClock()
    async with running(store, clock) as (mirror, _):
        store.passes = lambda batch: False
        await put(store, "a", b"1")
        await settle()
        assert values(mirror) == {}
        await clock.advance(60)
        assert values(mirror) == {P + "a": b"1"}
        assert store.watches == 2


async def test_a_compacted_watch_lists_again_and_reports_only_the_difference() -> None:
    store, clock = LossyStore(history=4), HandClock()
    await store.txn([], [Put(P + "same", b"1"), Put(P + "gone", b"1")])
    async with running(store, clock) as (mirror, changes):
        changes.clear()
        await store.txn([], [Delete(P + "gone")])
        for n in range(20):
            await put(store, "busy", bytes([n]))
        await settle()
        assert changes == [(P + "gone", None), (P + "busy", b"\x13")]
        assert values(mirror) == {P + "same": b"1", P + "busy": b"\x13"}


async def test_an_outage_at_the_start_and_during_a_compare_is_waited_out() -> None:
    down = True
    clock = HandClock()
    store = MemoryStore(fault=lambda call: Fault.UNAVAILABLE if down and call == "list" else None)
    await put(store, "a", b"1")
    async with running(store, clock) as (mirror, _):
        assert mirror.revision == 0
        await clock.advance(1)
        down = False
        await clock.advance(5)
        assert values(mirror) == {P + "a": b"1"}
        down = True
        await clock.advance(60)
        assert mirror.fresh_at == 6.0
        down = False
        await clock.advance(5)
        assert mirror.fresh_at == 71.0


async def test_a_store_set_back_to_an_older_copy_is_followed() -> None:
    store, clock = MemoryStore(), HandClock()
    for n in range(5):
        await put(store, "a", bytes([n]))
    async with running(store, clock) as (mirror, changes):
        older = MemoryStore()
        await put(older, "a", b"old")
        mirror._store = older
        await clock.advance(60)
        assert values(mirror) == {P + "a": b"old"}
        assert changes[-1] == (P + "a", b"old")
        await put(older, "a", b"new")
        await settle()
        assert values(mirror) == {P + "a": b"new"}


async def test_an_error_in_on_change_ends_run() -> None:
    store = MemoryStore()
    await put(store, "a", b"1")

    def broken(key: str, entry: Entry | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Mirror(store, P, HandClock(), broken).run()


Step = tuple[str, str, bool]
steps = st.lists(st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from("abcd"), st.booleans()), max_size=30)


@given(steps, st.integers(0, 30), st.integers(0, 30), st.integers(0, 8))
@settings(max_examples=500, deadline=None)
def test_a_compare_shows_the_truth_whatever_the_watch_lost(script: list[Step], asked_at: int, came_at: int, lag: int) -> None:
    """Each step changes the store; its flag says whether the watch gives it. The listing of one step comes at a later one.

    The watch is `lag` steps late; what it loses, it loses before the listing is asked for.
    """
    asked_at = min(asked_at, len(script))
    came_at = min(max(asked_at, came_at), len(script))
    truth: dict[str, Entry] = {}
    table = Table(lambda key, entry: None)
    listing = Listing(1, ())
    under_way: list[tuple[int, Event]] = []
    for number in range(len(script) + lag + 1):
        while under_way and under_way[0][0] <= number:
            event = under_way.pop(0)[1]
            table.apply(WatchBatch(event.mod_revision, (event,)))
        if number == asked_at:
            table.start_compare()
            listing = Listing(number + 1, tuple(entry for _, entry in sorted(truth.items())))
        if number == came_at:
            table.compare(listing)
        if number < len(script):
            kind, key, given = script[number]
            happened = change(truth, kind, key, number + 2)
            if happened is not None and (given or number >= asked_at):
                under_way.append((number + lag, happened))
    for _, event in under_way:
        table.apply(WatchBatch(event.mod_revision, (event,)))
    assert dict(table.items("")) == truth


def change(truth: dict[str, Entry], kind: str, key: str, revision: int) -> Event | None:
    if kind == "delete":
        return Event("delete", key, b"", revision) if truth.pop(key, None) else None
    held = truth.get(key)
    created, version = (held.create_revision, held.version + 1) if held else (revision, 1)
    truth[key] = Entry(key, b"", revision, created, version)
    return Event("put", key, b"", revision, created, version)


async def test_wait_for_wakes_in_order_and_survives_a_cancelled_waiter() -> None:
    store, clock = MemoryStore(), HandClock()
    async with running(store, clock) as (mirror, _):
        woken: list[int] = []

        async def wait(revision: int) -> None:
            await mirror.wait_for(revision)
            woken.append(revision)

        start = mirror.revision
        waits = [asyncio.create_task(wait(start + n)) for n in (2, 1, 3)]
        await settle()
        waits[1].cancel()
        await put(store, "a", b"1")
        await put(store, "a", b"2")
        await settle()
        assert woken == [start + 2]
        ops: list[Op] = [Put(P + "a", b"3")]
        await store.txn([], ops)
        await settle()
        assert woken == [start + 2, start + 3]
        await asyncio.gather(*waits, return_exceptions=True)
