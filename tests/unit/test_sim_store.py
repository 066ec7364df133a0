"""sim/store.py: what each fault does to a call, and what becomes of calls when their process stops or dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import pytest

from controller.store.memory import MemoryStore
from model.errors import StoreFull, StoreUnavailable, StoreUnknown
from model.store_port import Delete, Guard, Op, Put, StoreLeaseLost
from sim.loop import VirtualLoop
from sim.process import Process
from sim.store import CALL_S, LATE_S, StoreSide
from sim.trace import Trace

T = TypeVar("T")
KEY = "/shoal/v1/services/web"


class Even(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return 0.5 * (a + b)


class Scene:
    """A store, one process beside it, and who wrote what."""

    def __init__(self, loop: VirtualLoop, seed: int = 1) -> None:
        self.loop, self.trace = loop, Trace(loop)
        self.store = MemoryStore(now=loop.time)
        self.process = Process(loop, "c1")
        self.side = self.another(self.process, seed)
        self.written: list[tuple[str, list[Op], int]] = []
        self.store.on_write.append(lambda by, ops, revision: self.written.append((by, ops, revision)))

    def another(self, process: Process, seed: int = 2, rng: random.Random | None = None) -> StoreSide:
        return StoreSide(self.store, process.name, process, self.loop, rng or random.Random(seed), self.trace)

    async def now(self) -> bytes:
        entry = await self.store.get(KEY)
        return entry.value if entry else b""


def play(story: Callable[[Scene], Awaitable[T]], seed: int = 1) -> T:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(_played(story, loop, seed))
    finally:
        loop.close()


async def _played(story: Callable[[Scene], Awaitable[T]], loop: VirtualLoop, seed: int) -> T:
    return await story(Scene(loop, seed))


def put(value: bytes) -> list[Put]:
    return [Put(KEY, value)]


def test_a_call_takes_a_little_time_and_says_who_wrote() -> None:
    async def story(scene: Scene) -> None:
        assert (await scene.side.txn([], put(b"1"))).ok
        assert 0.001 <= scene.loop.time() <= 0.003
        assert scene.written == [("c1", put(b"1"), 2)]
        assert " put services/web 2 by c1 1 bytes" in scene.trace.story("services/web")[-1]

    play(story)


def test_a_second_side_does_not_tell_the_trace_again() -> None:
    async def story(scene: Scene) -> int:
        scene.another(Process(scene.loop, "c2"))
        await scene.side.txn([], put(b"1"))
        return len(scene.trace.story("services/web"))

    assert play(story) == 1


def test_half_of_the_unknown_outcomes_took_effect_some_of_them_late() -> None:
    async def story(scene: Scene) -> tuple[bool, bool]:
        scene.side.faults.unknown = 1.0
        with pytest.raises(StoreUnknown):
            await scene.side.txn([], put(b"1"))
        assert scene.loop.time() <= CALL_S
        at_once = bool(await scene.now())
        await asyncio.sleep(LATE_S)
        return at_once, bool(await scene.now())

    seen = [play(story, seed) for seed in range(200)]
    at_once, late, never = seen.count((True, True)), seen.count((False, True)), seen.count((False, False))
    assert at_once + late + never == 200
    assert min(at_once, late) > 30
    assert 80 < never < 120


def test_what_only_reads_is_never_unknown() -> None:
    async def story(scene: Scene) -> None:
        lease = await scene.side.lease_grant(3)
        scene.side.faults.unknown = 1.0
        calls: Sequence[Awaitable[Any]] = (scene.side.get(KEY), scene.side.list(KEY), scene.side.lease_keepalive(lease))
        for call in calls:
            with pytest.raises(StoreUnavailable):
                await call

    play(story)


def test_an_outage_is_waited_out_or_told() -> None:
    async def story(scene: Scene) -> None:
        scene.side.faults.unavailable = True
        with pytest.raises(StoreUnavailable):
            await scene.side.txn([], put(b"1"))
        assert CALL_S <= scene.loop.time() <= CALL_S + 0.2
        call = asyncio.ensure_future(scene.side.txn([], put(b"2")))
        await asyncio.sleep(1.0)
        assert await scene.now() == b""
        scene.side.faults.unavailable = False
        assert (await call).ok

    play(story)


@pytest.mark.parametrize(("outage_at", "written"), [(0.0001, b""), (0.0016, b"1")])
def test_an_outage_while_a_call_is_on_its_way_leaves_its_outcome_unknown(outage_at: float, written: bytes) -> None:
    """Before it arrived (at 1 ms), and before the answer did (at 2 ms)."""

    async def story(scene: Scene) -> bytes:
        scene.side = scene.another(Process(scene.loop, "c2"), rng=Even())
        call = asyncio.ensure_future(scene.side.txn([], put(b"1")))
        await asyncio.sleep(outage_at)
        scene.side.faults.unavailable = True
        with pytest.raises(StoreUnknown):
            await call
        return await scene.now()

    assert play(story) == written


def test_without_space_puts_are_refused_and_deletes_are_not() -> None:
    async def story(scene: Scene) -> None:
        await scene.side.txn([], put(b"1"))
        scene.side.faults.read_only = True
        with pytest.raises(StoreFull):
            await scene.side.txn([], put(b"2"))
        assert (await scene.side.txn([], [Delete(KEY)])).ok
        assert await scene.side.get(KEY) is None

    play(story)


def test_a_conflict_writes_nothing_and_needs_a_guard() -> None:
    async def story(scene: Scene) -> None:
        scene.side.faults.conflict = 1.0
        assert not (await scene.side.txn([Guard(KEY, 0)], put(b"1"))).ok
        assert await scene.now() == b""
        assert (await scene.side.txn([], put(b"2"))).ok

    play(story)


def test_a_slow_store_may_be_too_slow() -> None:
    async def story(scene: Scene) -> None:
        scene.side.faults.slow_s = 2.0
        assert (await scene.side.txn([], put(b"1"))).ok
        assert 1.0 <= scene.loop.time() <= 3.1
        scene.side.faults.slow_s = 9.0
        began = scene.loop.time()
        with pytest.raises(StoreUnknown):
            await scene.side.txn([], put(b"2"))
        assert scene.loop.time() - began == pytest.approx(CALL_S)

    play(story)


def test_a_lease_ends_by_itself_and_is_renewed_in_time() -> None:
    async def story(scene: Scene) -> None:
        lease = await scene.side.lease_grant(3)
        await scene.side.txn([], [Put(KEY, b"me", lease)])
        await asyncio.sleep(2.0)
        await scene.side.lease_keepalive(lease)
        await asyncio.sleep(2.9)
        assert scene.written[-1][1] == [Put(KEY, b"me", lease)]
        await asyncio.sleep(0.2)
        assert scene.written[-1] == ("", [Delete(KEY)], 3), "nobody asked, and it is gone"
        with pytest.raises(StoreLeaseLost):
            await scene.side.lease_keepalive(lease)

    play(story)


def test_a_stopped_processs_write_happens_and_it_learns_of_it_later() -> None:
    async def story(scene: Scene) -> None:
        results: list[Any] = []

        async def work() -> None:
            results.append(await scene.side.txn([], put(b"1")))

        scene.process.spawn(work())
        await asyncio.sleep(0.0)
        scene.process.pause()
        await asyncio.sleep(1.0)
        assert (await scene.now(), results) == (b"1", [])
        scene.process.resume()
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        assert [result.ok for result in results] == [True]

    play(story)


def test_of_a_killed_process_nothing_arrives_later_and_half_has_arrived() -> None:
    async def story(scene: Scene) -> bytes:
        scene.process.spawn(scene.side.txn([], put(b"1")))
        await asyncio.sleep(0.0)
        scene.process.kill()
        then = await scene.now()
        await asyncio.sleep(10.0)
        assert await scene.now() == then
        return then

    assert 20 < [play(story, seed) for seed in range(80)].count(b"1") < 60


def test_a_watch_loses_batches_and_goes_on() -> None:
    async def story(scene: Scene) -> list[bytes]:
        got: list[bytes] = []

        async def watch() -> None:
            async with aclosing(scene.side.watch(KEY, 1)) as batches:
                async for batch in batches:
                    got.extend(event.value for event in batch.events)

        watching = asyncio.ensure_future(watch())
        for number in range(100):
            scene.side.faults.watch_loses = 0.5 if number < 50 else 0.0
            await scene.store.txn([], put(b"%d" % number))
            await asyncio.sleep(0.1)
        watching.cancel()
        return got

    got = play(story)
    assert 10 < len(got) - 50 < 40
    assert got[-50:] == [b"%d" % number for number in range(50, 100)]


def test_a_late_watch_keeps_the_order_and_waits_out_an_outage() -> None:
    async def story(scene: Scene) -> list[bytes]:
        got: list[bytes] = []

        async def watch() -> None:
            async with aclosing(scene.side.watch(KEY, 1)) as batches:
                async for batch in batches:
                    got.extend(event.value for event in batch.events)

        watching = asyncio.ensure_future(watch())
        scene.side.faults.watch_late_s = 1.0
        for number in range(20):
            await scene.store.txn([], put(b"%d" % number))
            await asyncio.sleep(0.1)
        scene.side.faults.unavailable = True
        await asyncio.sleep(5.0)
        assert len(got) < 20
        scene.side.faults.unavailable = False
        await asyncio.sleep(5.0)
        watching.cancel()
        return got

    assert play(story) == [b"%d" % number for number in range(20)]


def test_the_same_seed_gives_the_same_trace() -> None:
    async def story(scene: Scene) -> str:
        scene.side.faults.unknown = scene.side.faults.conflict = 0.3
        for number in range(50):
            with suppress(StoreUnknown):
                await scene.side.txn([Guard("/shoal/v1/none", 0)], put(b"%d" % number))
        return scene.trace.sha256()

    assert play(story, 7) == play(story, 7) != play(story, 8)
