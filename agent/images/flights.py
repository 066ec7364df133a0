"""One piece of work for everyone who wants the same thing at the same time.

Rules: a caller that is cancelled does not take the work from the others; the work is owned here and ends at `drain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[T]] = {}

    async def join(self, key: str, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the work under way for `key`, started now when there is none."""
        return await asyncio.shield(self.start(key, start))

    def start(self, key: str, start: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The same without waiting."""
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(start(), name=key)
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def __contains__(self, key: str) -> bool:
        return key in self._tasks

    async def drain(self) -> None:
        """Wait until nothing is under way, whatever comes of it."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _landed(self, key: str, task: asyncio.Task[T]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen: when every caller was cancelled nobody else asks
