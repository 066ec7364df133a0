"""Answers that come bit by bit: NDJSON out of several sources at once, and server-sent events.

Rules: a slow reader slows its sources down (bounded queue) instead of filling memory. A source that fails becomes one line with
`error`; the others go on. When the reader goes away everything it asked for ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import StreamingResponse

from controller.api.routing import dump
from model.errors import ShoalError

WAITING_MAX: Final = 256
NDJSON: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"

Row = dict[str, Any]
Rows = AsyncGenerator[Row, None]

log = logging.getLogger(__name__)


def ndjson(rows: Rows) -> StreamingResponse:
    async def lines() -> AsyncGenerator[bytes, None]:
        async with aclosing(rows):
            async for row in rows:
                yield dump(row) + b"\n"

    return StreamingResponse(lines(), media_type=NDJSON, headers={"cache-control": "no-store"})


def event_stream(events: AsyncGenerator[bytes, None]) -> StreamingResponse:
    """Server-sent events, each already in its words."""

    async def whole() -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            async for event in events:
                yield event

    return StreamingResponse(whole(), media_type=EVENTS, headers={"cache-control": "no-store"})


async def merged(sources: Sequence[Rows]) -> Rows:
    """The rows of all sources as they come; ends when all have ended."""
    queue: asyncio.Queue[Row | None] = asyncio.Queue(WAITING_MAX)
    tasks = [asyncio.create_task(_drain(source, queue)) for source in sources]
    try:
        left = len(tasks)
        while left:
            row = await queue.get()
            if row is None:
                left -= 1
            else:
                yield row
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def guarded(source: Rows, blank: Row) -> Rows:
    """The source's rows; its failure as a last row, `blank` with `error`."""
    try:
        async with aclosing(source):
            async for row in source:
                yield row
    except ShoalError as error:
        yield {**blank, "error": str(error)}


async def _drain(source: Rows, queue: asyncio.Queue[Row | None]) -> None:
    """Puts the end behind the rows, unless it is cancelled: then nobody takes from the queue any more, and it may be full."""
    try:
        async with aclosing(source):
            async for row in source:
                await queue.put(row)
    except Exception:
        log.exception("a stream failed")
    await queue.put(None)
