"""Queries are asked one at a time each, as long as somebody reads them, and their series say what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing

from controller.prometheus.memory import MemoryPrometheus
from controller.prometheus.queries import KEPT_S, NO_URL, UNREAD_S, Queries
from sim.clock import SimClock
from sim.loop import VirtualLoop

URL = "http://prometheus:9090"


class Slow(MemoryPrometheus):
    """Takes its time, and counts how many ask at once."""

    def __init__(self, takes_s: float) -> None:
        super().__init__()
        self.takes_s, self.at_once, self.most = takes_s, 0, 0

    async def ask(self, url: str, query: str) -> float:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.takes_s)
            return await super().ask(url, query)
        finally:
            self.at_once -= 1


def played(prometheus: MemoryPrometheus, url: str, story: Callable[[Queries, SimClock], Awaitable[None]]) -> None:
    """The story on virtual time, while the queries are asked."""
    with closing(VirtualLoop()) as loop:
        clock = SimClock(loop)

        async def main() -> None:
            queries = Queries(prometheus, clock, url)
            asking = asyncio.ensure_future(queries.run())
            await asyncio.sleep(0)
            await story(queries, clock)
            asking.cancel()
            await asyncio.wait({asking})

        loop.run_until_complete(main())


def test_a_query_is_asked_every_five_seconds_and_its_answers_are_rows() -> None:
    prometheus = MemoryPrometheus()
    prometheus.answers["up"] = [3.0]

    async def story(queries: Queries, clock: SimClock) -> None:
        assert queries.series("", "up").problem == "not asked yet"
        began_ms = clock.now() * 1000
        for _ in range(22):
            await asyncio.sleep(1)
            found = queries.series("", "up")
            assert queries.series("http://other:9090", "up") is not found
        assert found.problem == ""
        assert [(at - began_ms, value, spoke) for at, value, spoke in found.rows] == [
            (5000.0 * number, 3.0, None) for number in range(5)
        ]
        assert prometheus.asked.count((URL, "up")) == prometheus.asked.count(("http://other:9090", "up")) == 5

    played(prometheus, URL, story)


def test_one_request_at_a_time_however_long_it_takes() -> None:
    prometheus = Slow(12.0)
    prometheus.answers["up"] = [3.0]

    async def story(queries: Queries, clock: SimClock) -> None:
        for _ in range(50):
            queries.series("", "up")
            await asyncio.sleep(1)

    played(prometheus, URL, story)
    assert prometheus.most == 1
    assert len(prometheus.asked) == 4


def test_what_nobody_reads_is_no_longer_asked_and_old_rows_go() -> None:
    prometheus = MemoryPrometheus()
    prometheus.answers["up"] = [3.0]

    async def story(queries: Queries, clock: SimClock) -> None:
        for _ in range(300):
            found = queries.series("", "up")
            await asyncio.sleep(1)
        assert len(found.rows) == KEPT_S / 5 + 1
        asked = len(prometheus.asked)
        await asyncio.sleep(10 * UNREAD_S)
        assert len(prometheus.asked) <= asked + UNREAD_S / 5 + 1
        assert queries.series("", "up").problem == "not asked yet"

    played(prometheus, URL, story)


def test_a_failure_is_told_until_the_next_answer() -> None:
    prometheus = MemoryPrometheus()

    async def story(queries: Queries, clock: SimClock) -> None:
        prometheus.answers["up"] = [3.0]
        queries.series("", "up")
        await asyncio.sleep(1)
        assert queries.series("", "up").problem == ""
        prometheus.answers["up"] = "Prometheus refuses the query"
        await asyncio.sleep(5)
        found = queries.series("", "up")
        assert (found.problem, len(found.rows)) == ("Prometheus refuses the query", 1)
        prometheus.answers["up"] = [4.0]
        await asyncio.sleep(5)
        assert queries.series("", "up").problem == ""

    played(prometheus, URL, story)


def test_an_answer_that_does_not_come_makes_the_last_one_stale() -> None:
    prometheus = Slow(0.0)
    prometheus.answers["up"] = [3.0]

    async def story(queries: Queries, clock: SimClock) -> None:
        queries.series("", "up")
        await asyncio.sleep(1)
        prometheus.takes_s = 1000.0
        await asyncio.sleep(30)
        assert queries.series("", "up").problem == "no answer for 31 s"

    played(prometheus, URL, story)


def test_without_any_prometheus_the_series_says_what_to_do() -> None:
    async def story(queries: Queries, clock: SimClock) -> None:
        assert queries.series("", "up").problem == NO_URL

    played(MemoryPrometheus(), "", story)
