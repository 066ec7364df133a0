"""Processes of the simulation: stopped, continued, killed as a whole."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sim.loop import VirtualLoop
from sim.process import PROCESS, Process


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


async def count(loop: VirtualLoop, into: list[float]) -> None:
    try:
        while True:
            await asyncio.sleep(1)
            into.append(loop.time())
    finally:
        into.append(-1)


def run(loop: VirtualLoop, *steps: tuple[float, Callable[[], object]], until: float = 10) -> None:
    for when, step in steps:
        loop.call_at(when, step)
    loop.run_until_complete(asyncio.sleep(until))


def test_everything_made_in_a_process_belongs_to_it(loop: VirtualLoop) -> None:
    process, seen = Process(loop, "a"), list[Process | None]()

    async def child() -> None:
        seen.append(PROCESS.get(None))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
        asyncio.get_running_loop().call_soon(lambda: seen.append(PROCESS.get(None)))
        await asyncio.to_thread(lambda: seen.append(PROCESS.get(None)))

    process.spawn(main())
    run(loop)
    assert seen == [process] * 3


def test_killed_nothing_of_it_runs_again(loop: VirtualLoop) -> None:
    a, b = Process(loop, "a"), Process(loop, "b")
    of_a, of_b, deaths = list[float](), list[float](), list[float]()
    a.on_death.append(lambda: deaths.append(loop.time()))
    a.spawn(count(loop, of_a))
    b.spawn(count(loop, of_b))
    run(loop, (2.5, a.kill), (3, gc.collect), (4, a.kill), until=4.5)
    assert of_a == [1, 2]
    assert of_b == [1, 2, 3, 4]
    assert deaths == [2.5]
    assert not a.alive
    with pytest.raises(RuntimeError, match="dead"):
        a.spawn(count(loop, of_a))


def test_freeing_what_was_killed_runs_nothing_of_it(loop: VirtualLoop) -> None:
    process, said = Process(loop, "a"), list[str]()

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        try:
            yield
        finally:
            said.append("closed")

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(9):
                yield number
        finally:
            said.append("generator closed")

    async def main() -> None:
        async with opened(), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1000))
            async for _ in numbers():
                await asyncio.sleep(1000)

    process.spawn(main())
    circle: list[Any] = [process]
    circle.append(circle)
    del process
    run(loop, (1, circle[0].kill), (2, circle.clear), (3, gc.collect))
    assert said == []


@pytest.mark.parametrize(("killed", "said"), [(True, []), (False, ["closed"])])
def test_a_generator_in_a_circle_is_closed_unless_its_process_is_dead(loop: VirtualLoop, killed: bool, said: list[str]) -> None:
    process, heard = Process(loop, "a"), list[str]()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            heard.append("closed")

    async def main() -> None:
        generator = numbers()
        await anext(generator)
        circle: list[Any] = [generator]
        circle.append(circle)
        del generator, circle
        await asyncio.sleep(1000)

    process.spawn(main())
    run(loop, (1, process.kill if killed else process.pause), (2, gc.collect), (3, process.resume), until=4)
    assert heard == said


def test_paused_it_goes_on_later_with_what_was_due_in_order(loop: VirtualLoop) -> None:
    process, ran = Process(loop, "a"), list[tuple[str, float]]()

    def note(name: str) -> None:
        ran.append((name, loop.time()))

    async def main() -> None:
        for name, delay in (("second", 3), ("first", 2), ("third", 6)):
            loop.call_later(delay, note, name)
        await asyncio.sleep(1000)

    process.spawn(main())
    run(loop, (1, process.pause), (5, process.resume))
    assert ran == [("first", 5), ("second", 5), ("third", 6)]


def test_killed_while_paused(loop: VirtualLoop) -> None:
    process, ran = Process(loop, "a"), list[float]()
    process.spawn(count(loop, ran))
    run(loop, (1.5, process.pause), (3, process.kill), (4, process.resume))
    assert ran == [1]
    assert not process.paused


def test_what_the_world_does_to_it_waits_for_it(loop: VirtualLoop) -> None:
    process, got, queue = Process(loop, "a"), list[tuple[int, float]](), asyncio.Queue[int]()

    async def main() -> None:
        while True:
            got.append((await queue.get(), loop.time()))

    process.spawn(main())
    run(loop, (1, process.pause), (2, lambda: queue.put_nowait(7)), (3, lambda: queue.put_nowait(8)), (4, process.resume))
    assert got == [(7, 4), (8, 4)]


def test_an_unexpected_exception_is_the_death_of_the_process(loop: VirtualLoop) -> None:
    process, ran, told = Process(loop, "a"), list[float](), list[str]()
    process.crashed = lambda error: told.append(f"{type(error).__name__}: {error}, alive: {process.alive}")

    async def fail() -> None:
        await asyncio.sleep(1.5)
        raise ValueError("what now")

    process.spawn(count(loop, ran))
    process.spawn(fail())
    run(loop)
    assert told == ["ValueError: what now, alive: True"]
    assert ran == [1]


@pytest.mark.parametrize("where", ["task", "callback"])
def test_exit_is_the_death_of_the_process_and_not_of_the_loop(loop: VirtualLoop, where: str) -> None:
    process, told = Process(loop, "a"), list[BaseException]()
    process.crashed = told.append

    async def leave() -> None:
        await asyncio.sleep(1)
        if where == "callback":
            loop.call_soon(exit_now)
            await asyncio.sleep(1)
        exit_now()

    def exit_now() -> None:
        raise SystemExit(3)

    process.spawn(leave())
    run(loop)
    assert [type(error) for error in told] == [SystemExit]


def test_a_cancelled_task_is_no_crash(loop: VirtualLoop) -> None:
    process = Process(loop, "a")
    task = process.spawn(asyncio.sleep(1000))
    run(loop, (1, task.cancel))
    assert process.alive


def test_killing_oneself_runs_to_the_next_wait(loop: VirtualLoop) -> None:
    process, ran = Process(loop, "a"), list[str]()

    async def main() -> None:
        process.kill()
        ran.append("still here")
        await asyncio.sleep(0)
        ran.append("never")

    process.spawn(main())
    run(loop)
    assert ran == ["still here"]


def test_ended_tasks_are_not_kept(loop: VirtualLoop) -> None:
    process = Process(loop, "a")

    async def one(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        for _ in range(500):
            await asyncio.create_task(make())

    process.spawn(one(lambda: asyncio.sleep(0)))
    run(loop)
    assert len(process._tasks._tasks) < 40
