"""The queries that policies name, asked again and again, and what came of it: a row an answer.

Rules: a query is asked by one request at a time, however many policies name it, and no longer than somebody reads its answers.
Memory of the leader only. When the last request failed, or the newest answer is too old, the series says why.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from controller.decide.scaling.types import Series
from controller.prometheus.port import NoAnswer, Prometheus
from model.ports import Clock

KEPT_S: Final = 120.0
UNREAD_S: Final = 60.0
STALE: Final = 4
"""Without an answer for so many intervals it is stale."""
AT_ONCE_MAX: Final = 500

NO_URL: Final = "no Prometheus is named: start the controller with --prometheus URL, or give the metric a url"


@dataclass(slots=True)
class _Query:
    """`due_s`, `read_s`: of the monotonic clock."""

    read_s: float
    due_s: float
    rows: deque[tuple[int, float, int | None]] = field(default_factory=deque)
    problem: str = "not asked yet"
    asking: bool = False


class Queries:
    """`series` as often as one likes; `run` asks, for as long as the reign lasts. `url`: whom metrics ask that name nobody."""

    def __init__(self, prometheus: Prometheus, clock: Clock, url: str = "", every_s: float = 5.0) -> None:
        self._prometheus = prometheus
        self._clock = clock
        self._url = url
        self._every_s = every_s
        self._queries: dict[tuple[str, str], _Query] = {}
        self._news = asyncio.Event()

    def series(self, url: str, query: str) -> Series:
        """What is known of it; whoever asks for it has it asked."""
        where, now_s = url or self._url, self._clock.monotonic()
        if not where:
            return Series(problem=NO_URL)
        known = self._queries.get((where, query))
        if known is None:
            if len(self._queries) >= AT_ONCE_MAX:
                return Series(problem=f"there are more than {AT_ONCE_MAX} different queries: it is not asked")
            known = self._queries[where, query] = _Query(now_s, now_s)
            self._news.set()
        known.read_s = now_s
        return Series(tuple(known.rows), known.problem or self._stale(known), int(self._every_s * 1000))

    def _stale(self, known: _Query) -> str:
        age_s = self._clock.now() - known.rows[-1][0] / 1000
        return f"no answer for {age_s:.0f} s" if age_s > STALE * self._every_s else ""

    async def run(self) -> None:
        """For ever: until cancelled."""
        self._queries.clear()
        async with asyncio.TaskGroup() as group:
            while True:
                for key, query in self._due():
                    query.asking = True
                    group.create_task(self._ask(key, query))
                await self._until_news()

    def _due(self) -> list[tuple[tuple[str, str], _Query]]:
        now_s = self._clock.monotonic()
        for key in [key for key, query in self._queries.items() if now_s - query.read_s > UNREAD_S and not query.asking]:
            del self._queries[key]
        return [(key, query) for key, query in self._queries.items() if query.due_s <= now_s and not query.asking]

    async def _until_news(self) -> None:
        """Until another query is read for the first time, one has been answered, or one is due."""
        due_s = min((query.due_s for query in self._queries.values() if not query.asking), default=None)
        wait_s = None if due_s is None else max(0.0, due_s - self._clock.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def _ask(self, key: tuple[str, str], query: _Query) -> None:
        began_s = self._clock.monotonic()
        try:
            value = await self._prometheus.ask(*key)
            now_ms = int(self._clock.now() * 1000)
            query.rows.append((now_ms, value, None))
            while query.rows[0][0] < now_ms - KEPT_S * 1000:
                query.rows.popleft()
            query.problem = ""
        except NoAnswer as error:
            query.problem = str(error)
        finally:
            query.asking, query.due_s = False, began_s + self._every_s
            self._news.set()
