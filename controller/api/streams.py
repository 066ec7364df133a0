"""Answers that come line by line: NDJSON out of several sources at once.

Rules: a slow reader slows its sources down (bounded queue) instead of filling memory. A source that fails becomes one line with
`error`; the others go on. When the reader goes away everything it asked for ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from starlette.responses import StreamingResponse

from controller.api.routing import dump
from model.errors import ShoalError

WAITING_MAX: Final = 256
NDJSON: Final = "application/x-ndjson"

Row = dict[str, Any]


def ndjson(rows: AsyncIterator[Row]) -> StreamingResponse:
    async def lines() -> AsyncIterator[bytes]:
        async for row in rows:
            yield dump(row) + b"\n"

    return StreamingResponse(lines(), media_type=NDJSON, headers={"cache-control": "no-store"})


async def merged(sources: Sequence[AsyncIterator[Row]]) -> AsyncIterator[Row]:
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


async def guarded(source: AsyncIterator[Row], blank: Row) -> AsyncIterator[Row]:
    """The source's rows; its failure as a last row, `blank` with `error`."""
    try:
        async for row in source:
            yield row
    except ShoalError as error:
        yield {**blank, "error": str(error)}


async def _drain(source: AsyncIterator[Row], queue: asyncio.Queue[Row | None]) -> None:
    try:
        async for row in source:
            await queue.put(row)
    finally:
        queue.put_nowait(None) if not queue.full() else await queue.put(None)
