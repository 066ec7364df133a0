"""Following a log ends with the replica, after everything it wrote was given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from agent.core.following import follow_to_rest
from agent.plan.container import LogLine


def line(text: str) -> LogLine:
    return LogLine(at_ns=1, stream="stdout", line=text.encode())


async def source(queue: asyncio.Queue[str | None]) -> AsyncIterator[LogLine]:
    while (text := await queue.get()) is not None:
        yield line(text)


async def test_lines_written_before_the_rest_are_given_after_it() -> None:
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    rest = asyncio.Event()
    seen: list[bytes] = []
    queue.put_nowait("one")

    async def read() -> None:
        async for item in follow_to_rest(source(queue), _until(rest)):
            seen.append(item.line)
            if item.line == b"one":
                rest.set()
                queue.put_nowait("two")

    async with asyncio.timeout(5):
        await read()
    assert seen == [b"one", b"two"]


async def test_a_log_that_is_forgotten_ends_the_stream_though_the_replica_goes_on() -> None:
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    queue.put_nowait("one")
    queue.put_nowait(None)
    async with asyncio.timeout(5):
        assert [item.line async for item in follow_to_rest(source(queue), _until(asyncio.Event()))] == [b"one"]


async def _until(event: asyncio.Event) -> None:
    await event.wait()
