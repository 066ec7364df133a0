"""Chance, clock and trace of the simulation."""

from __future__ import annotations

import asyncio
import hashlib

from model.ports import Clock, Random
from sim.chance import Chance
from sim.clock import EPOCH_S, SimClock, SimRandom
from sim.loop import VirtualLoop
from sim.trace import Trace


def test_a_stream_depends_on_seed_and_name_only() -> None:
    one, other = Chance(7), Chance(7)
    other.stream("b").random()
    assert [one.stream("a").random() for _ in range(3)] == [other.stream("a").random() for _ in range(3)]
    assert Chance(7).stream("a").random() != Chance(8).stream("a").random()
    assert Chance(7).stream("a").random() != Chance(7).stream("b").random()
    assert Chance(7).stream("a").random() == 0.8249923490562684  # in every process, on every machine


def test_a_stream_goes_on_where_it_was() -> None:
    chance = Chance(1)
    assert chance.stream("a").random() != chance.stream("a").random()


def test_random_port() -> None:
    rng: Random = SimRandom(Chance(1).stream("a"))
    assert len(rng.token_hex(8)) == 16
    assert rng.token_hex(8) != rng.token_hex(8)
    assert 2 <= rng.uniform(2, 3) <= 3


def test_clocks_jump_one_by_one() -> None:
    loop = VirtualLoop()
    one, other = SimClock(loop), SimClock(loop)
    clock: Clock = one
    loop.call_at(5, lambda: one.jump(-3600))
    loop.run_until_complete(clock.sleep(10))
    assert (one.now(), one.monotonic()) == (EPOCH_S + 10 - 3600, 10)
    assert other.now() == EPOCH_S + 10
    loop.close()


def test_the_digest_is_of_all_lines() -> None:
    loop = VirtualLoop()
    trace = Trace(loop, keep=3)
    for number in range(1000):
        trace.add("step", f"n{number % 2}", str(number))
        if number == 700:
            trace.sha256()
    lines = "".join(f"0.000000 step n{number % 2} {number}\n" for number in range(1000))
    assert trace.sha256() == hashlib.sha256(lines.encode()).hexdigest()
    assert trace.lines == 1000
    assert trace.story("n1") == [f"0.000000 step n1 {number}" for number in (995, 997, 999)]
    assert trace.recent() == [f"0.000000 step n{number % 2} {number}" for number in (997, 998, 999)]
    assert trace.story("n2") == []
    loop.close()


def test_what_is_thrown_away_at_the_end_leaves_no_trace() -> None:
    loop = VirtualLoop()
    trace = Trace(loop)

    async def one() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            trace.add("ended", "one")

    async def main() -> None:
        task = asyncio.create_task(one())
        await asyncio.sleep(1)
        assert not task.done()

    loop.run_until_complete(main())
    loop.close()
    assert trace.lines == 0
