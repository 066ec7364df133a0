"""Blocking work in the store's own threads, so that a slow registry cannot starve the agent's other threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="images")

    async def run(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments, **named))

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)


async def all_of(work: list[Coroutine[Any, Any, R]]) -> list[R]:
    """All to their end, then the first error: what was unpacked beside a failed layer is there at the next try."""
    results = await asyncio.gather(*work, return_exceptions=True)
    good: list[R] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        good.append(result)
    return good
