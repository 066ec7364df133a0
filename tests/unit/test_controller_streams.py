"""Streams of rows out of several sources: bounded, and ended with whoever reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from controller.api.streams import WAITING_MAX, guarded, merged
from model.errors import Unavailable


class Source:
    """Rows without end, or so many; knows whether it was closed, and tells when it has given more than the queue holds."""

    def __init__(self, rows: int = 1_000_000) -> None:
        self.left, self.closed = rows, False
        self.many = asyncio.Event()
        self.many_left = rows - WAITING_MAX - 1

    async def rows(self) -> AsyncGenerator[dict[str, Any], None]:
        try:
            while self.left:
                self.left -= 1
                if self.left <= self.many_left:
                    self.many.set()
                yield {"left": self.left}
        finally:
            self.closed = True


async def test_all_rows_of_all_sources_come() -> None:
    found = [row async for row in merged([Source(3).rows(), Source(2 * WAITING_MAX).rows(), Source(0).rows()])]
    assert len(found) == 3 + 2 * WAITING_MAX


async def test_a_reader_that_leaves_while_the_queue_is_full_ends_every_source() -> None:
    sources = [Source(), Source()]
    stream = merged([guarded(source.rows(), {}) for source in sources])
    async with asyncio.timeout(10):
        await anext(stream)
        await sources[0].many.wait()
        await stream.aclose()
    assert all(source.closed for source in sources)


async def test_a_source_that_fails_is_a_row_and_the_others_go_on() -> None:
    async def broken() -> AsyncGenerator[dict[str, Any], None]:
        yield {"left": 7}
        raise Unavailable("gone")

    found = [row async for row in merged([guarded(broken(), {"node": "n1"}), Source(2).rows()])]
    assert {"node": "n1", "error": "gone"} in found
    assert len(found) == 4
