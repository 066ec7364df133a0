"""The de-duplicating queue of dirty keys in front of a loop.

Rules: handlers only mark keys; adding a key twice is adding it once. The first key after a quiet time comes out at once; after
a pass the next one waits a pause (50 ms; as long as the pass took, when that was longer; at most 1 s, or who scales one
service while a thousand nodes report waits for them), so keys gather in batches under load and one start alone never waits.
Many keys at once are seldom all: a stack of hundreds of services is written in several transactions, and deciding about all
nodes twice costs more than a moment. They come out when a moment has brought no more.
Waiting is a field (`wake_at`), not a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

PAUSE_S: Final = 0.05
PAUSE_S_MAX: Final = 1.0
MANY: Final = 50
MOMENT_S: Final = 0.1
MOMENTS_MAX: Final = 3


class DirtyQueue:
    """One consumer. Times are the running loop's `time()`."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self._event = asyncio.Event()
        self._not_before = 0.0

    def add(self, keys: Iterable[str]) -> None:
        self._keys.update(dict.fromkeys(keys))
        if self._keys:
            self._event.set()

    def __len__(self) -> int:
        return len(self._keys)

    async def take(self, wake_at: float | None = None) -> tuple[str, ...]:
        """Every dirty key, sorted, as soon as there is one and the pause is over; empty when `wake_at` came first."""
        loop = asyncio.get_running_loop()
        if not self._keys:
            try:
                async with asyncio.timeout_at(wake_at):
                    await self._event.wait()
            except TimeoutError:
                return ()
        await asyncio.sleep(max(0.0, self._not_before - loop.time()))
        known = 0
        for _ in range(MOMENTS_MAX):
            if len(self._keys) >= max(MANY, known + 1):
                known = len(self._keys)
                await asyncio.sleep(MOMENT_S)
        keys, self._keys = tuple(sorted(self._keys)), {}
        self._event.clear()
        return keys

    def passed(self, took_s: float, *, at_most_s: float = PAUSE_S_MAX) -> None:
        """A pass of `took_s` seconds has ended; nothing is handed out for the pause that follows."""
        pause_s = min(at_most_s, max(PAUSE_S, took_s))
        self._not_before = asyncio.get_running_loop().time() + pause_s
