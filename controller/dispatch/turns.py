"""Sessions do their heavy work in turn: what a thousand nodes say, or must be told, at one moment is a thousand times a
millisecond.

Rule: only so many have a turn in one round of the event loop, so that the leader's lease and all else get theirs in between.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

AT_ONCE: Final = 4


class Turns:
    """`async with turns:` around work that waits for nothing; in the order in which it was asked for."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = asyncio.Semaphore(at_once)

    async def __aenter__(self) -> None:
        await self._free.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().call_soon(self._free.release)  # in the next round
