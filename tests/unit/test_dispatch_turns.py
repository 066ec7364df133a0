"""Heavy work of many sessions leaves room in every round of the event loop."""

from __future__ import annotations

import asyncio

from controller.dispatch.turns import Turns


async def test_only_so_many_have_a_turn_in_one_round() -> None:
    turns, rounds, done, order = Turns(3), 0, [0], list[int]()

    async def work(number: int) -> None:
        async with turns:
            done[-1] += 1
            order.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(10)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        rounds += 1
        done.append(0)
    assert max(done) == 3
    assert order == list(range(10))
    assert rounds < 20, "whoever waits is woken as soon as there is room"


async def test_who_gives_up_or_fails_leaves_the_turn_to_others() -> None:
    turns = Turns(1)

    async def fail() -> None:
        async with turns:
            raise ValueError

    first = asyncio.create_task(fail())
    given_up = asyncio.create_task(fail())
    await asyncio.sleep(0)
    given_up.cancel()
    assert [type(row) for row in await asyncio.gather(first, given_up, return_exceptions=True)] == [
        ValueError,
        asyncio.CancelledError,
    ]
    async with asyncio.timeout(5), turns:
        pass
