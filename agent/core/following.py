"""Following a log to its end: as long as the replica may still write, and no longer.

Rules: after the replica has come to rest, what it had written is still given; the stream ends once nothing came for `DRAIN_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final

from agent.runtime.port import LogLine

DRAIN_S: Final = 0.2


async def follow_to_rest(lines: AsyncIterator[LogLine], rest: Awaitable[None]) -> AsyncIterator[LogLine]:
    """`lines` until `rest` is done and what was written before it has been given."""
    resting = asyncio.ensure_future(rest)
    coming: asyncio.Future[LogLine | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(lines, None))
            waited: set[asyncio.Future[Any]] = {coming} if resting.done() else {coming, resting}
            done, _ = await asyncio.wait(
                waited, timeout=DRAIN_S if resting.done() else None, return_when=asyncio.FIRST_COMPLETED
            )
            if coming in done:
                line, coming = coming.result(), None
                if line is None:
                    return
                yield line
            elif not done:
                return
    finally:
        for task in (resting, coming):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
